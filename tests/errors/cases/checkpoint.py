"""Checkpoints that are not there, there already, or damaged."""

from errors.case import before, case, instead

CASES = [
    case(
        "LN-CKPT-01",
        "there already",
        """
        import tempfile
        from linnet import training
        other = tempfile.mkdtemp()
        state = {"x": x}
        checkpoints = training.Checkpoints("/tmp/linnet-case-there", is_async=False)
        if checkpoints.latest() is None: checkpoints.save(3, state)
        checkpoints.save(3, state)
        """,
        instead("assert found.step == 3"),
        before("checkpoints.save(3, state)", "assert checkpoints.steps() == [3]"),
        start="/tmp/linnet-case-there has a checkpoint of step 3.",
    ),
    case(
        "LN-CKPT-02",
        "no such step",
        """
        from linnet import training
        state = {"x": x}
        checkpoints = training.Checkpoints("/tmp/linnet-case-step", is_async=False)
        if checkpoints.latest() is None: checkpoints.save(3, state)
        found = checkpoints.restore(state, 4)
        """,
        instead("assert found.step == 3"),
        start="/tmp/linnet-case-step has no checkpoint of step 4.",
    ),
    case(
        "LN-CKPT-02",
        "none",
        """
        from linnet import training
        state = {"x": x}
        checkpoints = training.Checkpoints("/tmp/linnet-case-none")
        state = checkpoints.restore(state).state
        """,
        instead("assert checkpoints.latest() is None"),
        start="/tmp/linnet-case-none has no checkpoint that can be restored.",
    ),
    case(
        "LN-CKPT-03",
        "damaged",
        """
        import pathlib, shutil
        from linnet import training
        state = {"x": x}
        shutil.rmtree("/tmp/linnet-case-damaged", ignore_errors=True)
        checkpoints = training.Checkpoints("/tmp/linnet-case-damaged", is_async=False)
        checkpoints.save(3, state)
        checkpoints.save(4, state)
        file = pathlib.Path("/tmp/linnet-case-damaged/4/manifest/metadata")
        file.write_text("{")
        import warnings
        warnings.simplefilter("ignore")
        found = checkpoints.restore(state, 4)
        """,
        instead("assert found.step == 3"),
        start="the checkpoint of step 4 in /tmp/linnet-case-damaged is damaged:",
    ),
]
