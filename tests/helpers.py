"""What many tests need: arrays to feed, and one way to compare."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(shape, seed=0, dtype=jnp.float32):
    """Standard normal numbers, the same on every machine."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def assert_close(actual, desired, rtol=1e-5, atol=1e-6):
    """Two pytrees have one structure, and each pair of arrays is close.

    Shapes must be equal, without broadcasting; dtypes need not be, so that a bfloat16
    result can be compared with a float64 formula. NaN and infinity equal themselves.
    """
    actual_leaves, actual_tree = jax.tree_util.tree_flatten_with_path(actual)
    desired_leaves, desired_tree = jax.tree.flatten(desired)
    if actual_tree != desired_tree:
        raise AssertionError(
            f"the trees differ:\n  actual  {actual_tree}\n  desired {desired_tree}"
        )
    pairs = zip(actual_leaves, desired_leaves, strict=True)
    complaints = [_difference(p, a, d, rtol, atol) for (p, a), d in pairs]
    if any(complaints):
        raise AssertionError("\n".join(filter(None, complaints)))


def _difference(path, actual, desired, rtol, atol):
    """A sentence about what is not close, or None."""
    name = jax.tree_util.keystr(path, simple=True, separator=".") or "the array"
    a, d = _wide(actual), _wide(desired)
    if a.shape != d.shape:
        return f"{name}: shape {a.shape}, desired {d.shape}"
    close = np.isclose(a, d, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return None
    with np.errstate(invalid="ignore"):
        error = np.where(close, 0.0, np.abs(a - d))
    worst = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), a.shape)
    index = "[" + ", ".join(map(str, worst)) + "]" if a.ndim else ""
    return (
        f"{name}: {np.count_nonzero(~close)} of {a.size} differ; "
        f"largest error {error[worst]:.3g} at {name}{index}: "
        f"{a[worst]} but desired {d[worst]} (rtol={rtol}, atol={atol})"
    )


def _wide(value):
    """As NumPy, in a dtype in which differences of any two numbers can be told."""
    array = np.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array.astype(np.complex128)
    return array.astype(np.float64)
