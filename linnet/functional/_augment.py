"""Softer targets and mixed examples, as arrays.

B batch  W spatial axes  D features  C classes
"""

from __future__ import annotations

import math
from typing import TypeVar

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import as_array, inexact, is_inexact, is_integer

Batch = TypeVar("Batch")


def label_smoothing(
    labels: ArrayLike,
    alpha: float,
    *,
    num_classes: int | None = None,
) -> Array:
    r"""Moves a share of the probability from the labels to all classes alike.

    $(1 - \alpha) \, \mathrm{labels} + \alpha / C$. The loss that takes such labels is
    `optax.softmax_cross_entropy(logits, labels)`.

    Args:
        labels: Probabilities `[..., C]`, floating; or with `num_classes` the number
            of the class `[...]`, an integer.
        alpha: The share, `0 <= alpha <= 1`.
        num_classes: C, where `labels` are integers.

    Returns:
        `[..., C]`.

    Raises:
        ConfigError: `alpha` is outside `[0, 1]`.
        DTypeError: `labels` are integers and `num_classes` is not given.

    Example:
        >>> from linnet import functional as F
        >>> F.label_smoothing(jnp.array([0, 2]), 0.5, num_classes=4)
        Array([[0.625, 0.125, 0.125, 0.125],
               [0.125, 0.125, 0.625, 0.125]], dtype=float32)

    Differs from: `optax.smooth_labels`, the same, which takes no integers. The option
    `label_smoothing` of PyTorch's `CrossEntropyLoss` is `alpha`.
    Source: Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7,
    arXiv:1512.00567.
    """
    if isinstance(alpha, int | float) and not 0 <= alpha <= 1:
        raise ConfigError(
            f"`alpha` is {alpha}, but a share is in [0, 1].",
            code="LN-VALUE-02",
            fixes=[("the usual one will do", "alpha = 0.1")],
        )
    labels = as_array(labels)
    if num_classes is not None and is_integer(labels.dtype):
        labels = jax.nn.one_hot(labels, num_classes)
    elif not is_inexact(labels.dtype):
        raise _class_numbers("labels", labels, "labels = jax.nn.one_hot(labels, {})")
    return (1 - alpha) * labels + alpha / labels.shape[-1]


def mixup(
    batch: Batch,
    key: Array,
    alpha: float = 0.2,
    *,
    per_example: bool = False,
) -> Batch:
    r"""Mixes each example with another one of the batch.

    $\lambda x_i + (1 - \lambda) x_j$ with $\lambda \sim \mathrm{Beta}(\alpha,
    \alpha)$ and a random permutation $i \mapsto j$, the same for all arrays.

    Args:
        batch: A pytree of arrays `[B, ...]`, floating: inputs, and labels as
            probabilities.
        key: A random key.
        alpha: Of the Beta distribution; the larger, the more is mixed.
        per_example: Whether each example has a $\lambda$ of its own.

    Returns:
        A batch like the given one.

    Raises:
        ConfigError: `alpha` is not above zero.
        DTypeError: An array holds integers or booleans, such as numbers of classes.
        ShapeError: The arrays have no first axis, or not the same one.

    Example:
        >>> from linnet import functional as F
        >>> x, labels = jnp.eye(2), jax.nn.one_hot(jnp.array([0, 1]), 2)
        >>> x, labels = F.mixup((x, labels), jax.random.key(0))
        >>> bool((x == labels).all()), labels.sum(-1)
        (True, Array([1., 1.], dtype=float32))

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, eq. 1,
    arXiv:1710.09412.
    """
    _check_alpha(alpha)
    leaves, treedef = jax.tree.flatten(batch)
    arrays = [_quantities("batch", leaf) for leaf in leaves]
    size = _batch_size(arrays)
    of_share, of_order = jax.random.split(key)
    share = jax.random.beta(of_share, alpha, alpha, (size if per_example else 1,))
    order = jax.random.permutation(of_order, size)
    mixed: Batch = treedef.unflatten([_mixed(x, x[order], share) for x in arrays])
    return mixed


def cutmix(
    x: ArrayLike,
    labels: ArrayLike,
    key: Array,
    alpha: float = 1.0,
) -> tuple[Array, Array]:
    r"""Pastes into each example a box cut out of another one of the batch.

    The box has the share $1 - \lambda$ of the volume, $\lambda \sim
    \mathrm{Beta}(\alpha, \alpha)$, with its centre anywhere; what lies outside is cut
    off. The labels are mixed by the volumes that are left.

    Args:
        x: `[B, *W, D]`, of any dtype.
        labels: `[B, C]`, probabilities.
        key: A random key.
        alpha: Of the Beta distribution; the smaller, the nearer to all or nothing.

    Returns:
        Inputs and labels like the given ones.

    Raises:
        ConfigError: `alpha` is not above zero.
        DTypeError: `labels` are integers or booleans, such as numbers of classes.
        ShapeError: `x` has no spatial axis, or another first axis than `labels`.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.array([0.0, 1.0])[:, None, None, None] * jnp.ones((2, 8, 8, 1))
        >>> labels = jax.nn.one_hot(jnp.array([0, 1]), 2)
        >>> x, labels = F.cutmix(x, labels, jax.random.key(0))
        >>> bool(jnp.allclose(x.mean((1, 2, 3)), labels[:, 1]))
        True

    Source: Yun et al., "CutMix", 2019, eq. 1 and 2, arXiv:1905.04899.
    """
    _check_alpha(alpha)
    x, labels = as_array(x), _quantities("labels", labels)
    size = _batch_size([x, labels])
    window = x.shape[1:-1]
    if not window:
        raise ShapeError(
            f"`x` is {describe(x)}, but it must have spatial axes between the batch "
            "and the features.",
            code="LN-SHAPE-02",
            fixes=[("there is one feature", "x = x[..., None]")],
        )
    of_share, of_order, of_centre = jax.random.split(key, 3)
    share = jax.random.beta(of_share, alpha, alpha)
    side = (1 - share) ** (1 / len(window))
    inside = jnp.ones((1, *window, 1), bool)
    count = jnp.ones(())
    for axis, n in enumerate(window):
        centre = jax.random.uniform(jax.random.fold_in(of_centre, axis))
        ends = jnp.array([centre - side / 2, centre + side / 2]) * n
        low, high = jnp.clip(jnp.round(ends).astype(jnp.int32), 0, n)
        place = jax.lax.broadcasted_iota(jnp.int32, inside.shape, axis + 1)
        inside = inside & (place >= low) & (place < high)
        count = count * (high - low)
    order = jax.random.permutation(of_order, size)
    kept = (1 - count / max(math.prod(window), 1)).reshape(1)
    pasted = jnp.where(jnp.broadcast_to(inside, x.shape), x[order], x)
    return pasted, _mixed(labels, labels[order], kept)


def _mixed(x: Array, other: Array, share: Array) -> Array:
    share = share.reshape(-1, *(1,) * (x.ndim - 1))
    return (share * x + (1 - share) * other).astype(x.dtype)


def _check_alpha(alpha: float) -> None:
    if isinstance(alpha, int | float) and not 0 < alpha < math.inf:
        raise ConfigError(
            f"`alpha` is {alpha}, but it must be finite and above zero.",
            code="LN-VALUE-03",
            fixes=[("a little should be mixed", "alpha = 0.2")],
        )


def _quantities(name: str, x: ArrayLike) -> Array:
    """An array of numbers that can be averaged."""
    x = as_array(x)
    if is_integer(x.dtype):
        raise _class_numbers(name, x, f"{name} = jax.nn.one_hot({name}, {{}})")
    return inexact(x, name)


def _class_numbers(name: str, x: Array, code: str) -> DTypeError:
    if name == "batch":
        code = "x, labels = batch\nbatch = x, jax.nn.one_hot(labels, {})"
    return DTypeError(
        f"`{name}` is {describe(x)}, but probabilities of classes are needed."
        if name == "labels"
        else f"`{name}` holds {describe(x)}, but only quantities can be mixed.",
        code="LN-DTYPE-01",
        facts={name: describe(x)},
        why="A number of a class has no mean.",
        fixes=[("they are the numbers of 10 classes", code.format(10))],
    )


def _batch_size(arrays: list[Array]) -> int:
    """The first axis that all arrays have."""
    sizes = {x.shape[0] if x.ndim else None for x in arrays}
    if len(sizes) != 1 or None in sizes:
        shapes = ", ".join(map(describe, arrays)) or "no arrays"
        raise ShapeError(
            f"the batch is {shapes}, but all must have one first axis in common.",
            code="LN-SHAPE-01",
            why="Examples lie along it, and are mixed with each other.",
            fixes=[("only inputs and labels are mixed", "batch = x, labels")],
        )
    return int(sizes.pop() or 0)
