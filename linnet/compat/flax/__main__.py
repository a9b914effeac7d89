"""Runs a program written for Flax's Linen on this package.

python -m linnet.compat.flax script.py ARGS...
python -m linnet.compat.flax -m pytest ARGS...
"""

import pathlib
import runpy
import sys

from linnet.compat.flax import install


def main() -> None:
    """Runs what the command line names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip())
        sys.exit(0 if arguments else 2)
    install()
    if arguments[0] == "-m":
        if len(arguments) < 2:
            sys.exit("-m is followed by the name of a module.")
        sys.argv = arguments[1:]
        sys.path.insert(0, str(pathlib.Path.cwd()))
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path.insert(0, str(pathlib.Path(arguments[0]).resolve().parent))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
