"""Which programs are compiled."""

import contextlib
import logging
import re
from collections.abc import Iterator

import jax

_FINISHED = re.compile(r"Finished XLA compilation of (?:jit\()?([^ )]+)")


class _Names(logging.Handler):
    """Collects the names of compiled functions from JAX's log."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        found = _FINISHED.match(record.getMessage())
        if found:
            self.names.append(found[1])


@contextlib.contextmanager
def log_compiles() -> Iterator[list[str]]:
    """Collects the names of the functions that are compiled meanwhile.

    Returns:
        A list that grows by one name with each compilation.

    Example:
        >>> from linnet.testing import log_compiles
        >>> @jax.jit
        ... def double(x):
        ...     return 2 * x
        >>> with log_compiles() as names:
        ...     double(jnp.ones(3)), double(jnp.zeros(3))
        (Array([2., 2., 2.], dtype=float32), Array([0., 0., 0.], dtype=float32))
        >>> names.count("double")
        1
    """
    logger, handler = logging.getLogger("jax"), _Names()
    others, propagates = logger.handlers[:], logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        with jax.log_compiles():
            yield handler.names
    finally:
        logger.handlers, logger.propagate = others, propagates
