"""Checkpoints that are not there, there already, or damaged."""

from errors.case import before, case, instead

CASES = [
    case(
        "LN-CKPT-01",
        "there already",
        """
        from linnet import training
        other = folder + "/other"
        state = {"x": x}
        checkpoints = training.Checkpoints(folder, is_async=False)
        checkpoints.save(3, {"x": 2 * x})
        checkpoints.save(3, state)
        """,
        instead("assert found.step == 3"),
        before("checkpoints.save(3, state)", "assert checkpoints.steps() == [3]"),
        start="/folder has a checkpoint of step 3.",
    ),
    case(
        "LN-CKPT-02",
        "no such step",
        """
        from linnet import training
        state = {"x": x}
        checkpoints = training.Checkpoints(folder, is_async=False)
        checkpoints.save(3, state)
        found = checkpoints.restore(state, 4)
        """,
        instead("assert found.step == 3"),
        start="/folder has no checkpoint of step 4.",
    ),
    case(
        "LN-CKPT-02",
        "none",
        """
        from linnet import training
        state = {"x": x}
        checkpoints = training.Checkpoints(folder, is_async=False)
        state = checkpoints.restore(state).state
        """,
        instead("assert checkpoints.latest() is None"),
        start="/folder has no checkpoint that can be restored.",
    ),
    case(
        "LN-CKPT-03",
        "damaged",
        """
        import pathlib, warnings
        from linnet import training
        state = {"x": x}
        checkpoints = training.Checkpoints(folder, is_async=False)
        checkpoints.save(3, state)
        checkpoints.save(4, state)
        file = pathlib.Path(folder, "4/manifest/metadata")
        file.write_text("{")
        warnings.simplefilter("ignore")
        found = checkpoints.restore(state, 4)
        """,
        instead("assert found.step == 3"),
        start="the checkpoint of step 4 in /folder is damaged:",
    ),
]
