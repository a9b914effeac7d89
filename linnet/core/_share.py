"""One module or array at two places of a tree, which pytrees cannot express."""

from typing import Any

import jax

from linnet._errors import TreeError
from linnet._errors import describe as array_text
from linnet.core._node import Node, is_module
from linnet.core._path import Path, dotted, path_text
from linnet.core._table import modules, slots


def refuse_sharing(model: Any) -> None:
    """A pytree would silently make two of what is at two places."""
    __tracebackhide__ = True
    seen: dict[int, Path] = {}
    for path, module in modules(model):
        children, spec = module._node
        parts = [
            ((*path, jax.tree_util.GetAttrKey(n)), c)
            for n, c in zip(spec.names, children, strict=True)
        ]
        arrays = [
            ((*at, *keys), leaf)
            for at, child in parts
            if not isinstance(child, Node)
            for keys, leaf in jax.tree_util.tree_flatten_with_path(
                child, is_leaf=is_module
            )[0]
            if isinstance(leaf, jax.Array)
        ]
        shares = [(path, module)] if spec.leaves or _has_arrays(module) else []
        for at, value in [*shares, *arrays]:
            if id(value) in seen:
                raise _shared(value, seen[id(value)], at)
            seen[id(value)] = at


def _has_arrays(module: Node) -> bool:
    return any(below._spec.leaves for _, below in modules(module))


def _shared(value: Any, first: Path, second: Path) -> TreeError:
    one, two = dotted(first), dotted(second)
    what = type(value).__name__ if is_module(value) else array_text(value)
    if len(second) == 1:
        own = f"self.{two} = copy.deepcopy(self.{one})"
    else:
        change = "map_modules(copy.deepcopy)" if is_module(value) else "map(jnp.copy)"
        own = f'model = nn.select(model, "{path_text(second)}").{change}'
    fixes = [("each place has arrays of its own", own)]
    if len(first) == len(second) == 1:
        serves = f"y = self.{one}(x)" if is_module(value) else f"array = self.{one}"
        kind = "module" if is_module(value) else "array"
        when = f"one {kind} serves both places (in `__call__`; drop `{two}`)"
        fixes.append((when, serves))
    tied = f"model = nn.tie(model, {_ties(value, first, second)})"
    fixes.append(("both places share their arrays (before `nn.init`)", tied))
    return TreeError(
        f"the same {what} is at `{one}` and at `{two}`.",
        code="LN-SHARE-01",
        at=two,
        why="A pytree has no sharing: the two would become different arrays at the "
        "first `jax.jit` or optimiser step.",
        fixes=fixes,
    )


def _ties(value: Any, first: Path, second: Path) -> str:
    one, two = path_text(first), path_text(second)
    names = [e.text for e in slots(value)[2]] if is_module(value) else [""]
    if len(names) > 2:
        every = f'nn.select(model.{dotted(first)}, "**")'
        return f'{{f"{two}/{{p}}": f"{one}/{{p}}" for p in {every}}}'
    pairs = ((f"{two}/{n}".strip("/"), f"{one}/{n}".strip("/")) for n in names)
    return "{" + ", ".join(f'"{two}": "{one}"' for two, one in pairs) + "}"
