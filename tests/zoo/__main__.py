"""Accepts the present parameter trees."""

import pathlib
import sys

TESTS = pathlib.Path(__file__).parent.parent

if __name__ == "__main__":
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]

    import jax

    import zoo

    jax.config.update("jax_platforms", "cpu")
    zoo.GOLDEN.write_text(zoo.golden_text(), "utf-8")
    print(zoo.GOLDEN.relative_to(zoo.ROOT))
