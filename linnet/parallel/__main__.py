"""`python -m linnet.parallel 4 train.py --steps 100`: as several processes."""

import argparse
import signal
import sys

from linnet.parallel import ProcessError, launch


def main() -> None:
    """Runs what the command line says, and ends as the first process that fails."""
    parser = argparse.ArgumentParser(
        prog="python -m linnet.parallel",
        description="Runs a script as several processes of this machine, on its CPU.",
    )
    parser.add_argument("processes", type=int, help="how many")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="simulated, of each process"
    )
    parser.add_argument("script", help="whose first call is parallel.initialize()")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        launch([given.script, *given.args], given.processes, devices=given.devices)
    except ProcessError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
