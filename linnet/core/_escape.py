"""Errors for effects that would escape from a JAX transform."""

from linnet._errors import ScopeError
from linnet.core._locate import locate, where_transformed
from linnet.core._node import (
    Node,
)

_ON_TREES = {"map", "map_with_path", "leaves", "leaves_with_path", "flatten"}


_REMAT = "jax.checkpoint", "y = nn.remat({part})(x)"


_SCAN = (
    "jax.lax.scan",
    "carry, ys = nn.scan(lambda c, x: ({part}(c), None), x, None, length=2)",
)


_VMAP = "jax.vmap", "y = nn.vmap({part})(x)"


_TRANSFORMS = {  # by the name of the function in JAX that runs it
    "fun_remat": _REMAT,
    "scan": _SCAN,
    "fori_loop": ("jax.lax.fori_loop", _SCAN[1]),
    "vmap_f": _VMAP,
    "cache_miss": ("jax.jit", "y = nn.jit({part})(x)"),
    "cond": ("jax.lax.cond", "y = nn.cond(x.sum() > 0, {part}, lambda x: x, x)"),
    "while_loop": (
        "jax.lax.while_loop",
        "y = nn.while_loop(lambda y: y.sum() < 0, {part}, x)",
    ),
    "value_and_grad_f": (
        "jax.grad",
        "grads = nn.grad(lambda x: {part}(x).sum())(x)",
    ),
}


def closed_over(module: Node, effect: str) -> ScopeError:
    part, functions = where_transformed(module)
    transform = _transform(functions)
    name = f"`{transform[0]}`" if transform else "JAX transform"
    return ScopeError(
        f"{effect} inside a plain {name}, which does not carry the module.",
        code="LN-SCOPE-01",
        at=locate(module),
        why="The effect would leak a tracer, or be the same in every iteration.",
        fixes=_lifted(part, transform),
    )


def passed_through(module: Node) -> ScopeError:
    part, functions = where_transformed(module, passed=True)
    read = "only its parameters are needed", f"parameters = nn.params({part})"
    if _ON_TREES.intersection(functions):
        name, fixes = "`jax.tree` function", [read]
    else:
        # `jax.jit` flattens its arguments in C++, unseen.
        transform = _transform(functions or ["cache_miss"])
        name = f"`{transform[0]}`" if transform else "JAX function"
        fixes = [*_lifted(part, transform), read]
    return ScopeError(
        f"an open module was passed to a plain {name}.",
        code="LN-SCOPE-02",
        at=locate(module),
        why="During a stateful call a module is not a pytree: what the function did "
        "to a copy of it would be lost.",
        fixes=fixes,
    )


def _transform(functions: list[str]) -> tuple[str, str] | None:
    """The JAX transform that is under way, and the lifted form to use instead."""
    return next((_TRANSFORMS[name] for name in functions if name in _TRANSFORMS), None)


def _lifted(part: str, transform: tuple[str, str] | None) -> list[tuple[str, str]]:
    """The lifted form of the transform, or the most usual ones, and the general one."""
    if transform is None:
        usual = [(f"it is `{name}`", code) for name, code in (_REMAT, _SCAN, _VMAP)]
    else:
        named = " (`f` is the function)" if part == "f" else ""
        usual = [(f"the lifted form carries the module{named}", transform[1])]
    general = (
        "another transform, whose result is called like its function, is lifted",
        "y = nn.lift(jax.checkpoint)({part})(x)",
    )
    return [(when, code.format(part=part)) for when, code in [*usual, general]]
