"""Several processes: joining them, and what becomes of them."""

from errors.case import before, case, instead, swap

# Stands in for JAX, which in the process of the tests has started already.
START = """
        from unittest import mock
        from linnet import parallel
        from linnet.parallel import _distributed
        number, used = 0, []
        def start(process_id=None, **options):
            if process_id is None and options.get("coordinator_address"):
                raise ValueError
            if used:
                raise RuntimeError
        mock.patch.object(jax.distributed, "initialize", start).start()
        mock.patch.object(_distributed, "_Start", mock.Mock(is_made=False)).start()
        mock.patch.object(_distributed, "_end_at_once_on_errors").start()
"""
STOP = "mock.patch.stopall()"

CASES = [
    case(
        "LN-PROCESS-01",
        "half given",
        START + "        parallel.initialize('10.0.0.1:1234', 2)\n",
        instead(STOP),
        instead(STOP),
        start="`process_id` is not known to this process.",
    ),
    case(
        "LN-PROCESS-02",
        "too late",
        START
        + """
        used.append(jax.devices())
        parallel.initialize()
        """,
        before("used.append(jax.devices())", STOP),
        start="`parallel.initialize` was called after JAX had used the devices.",
    ),
    case(
        "LN-PROCESS-03",
        "one fails",
        """
        from linnet import parallel
        program = "import os; exit(3 * int(os.environ['JAX_PROCESS_ID']))"
        processes = 2
        outputs = parallel.launch(["-c", program], processes, echo=False)
        """,
        swap("processes = 2", check="assert outputs == ['']"),
        start="process 1 of 2 ended with exit code 3.",
    ),
    case(
        "LN-PROCESS-04",
        "too long",
        """
        from linnet import parallel
        command, timeout = ["-c", "import time; time.sleep(0.6)"], 0.4
        outputs = parallel.launch(command, 2, timeout=timeout, echo=False)
        """,
        before(
            "outputs = parallel.launch(command, 2, timeout=timeout, echo=False)",
            "assert outputs == ['', '']",
        ),
        start="after 0.4 seconds processes 0, 1 of 2 still ran.",
    ),
]
