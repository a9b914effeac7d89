"""Weight tying: one array that is computed from another at each use."""

from collections.abc import Callable, Mapping
from typing import Any

from linnet._errors import PathError
from linnet.core._node import unflatten
from linnet.core._path import no_match, path_text
from linnet.core._table import slots
from linnet.core._view import put


def _same(array: Any) -> Any:
    return array


def tie(
    model: Any,
    ties: Mapping[str, str | tuple[str, Callable[[Any], Any]]],
) -> Any:
    """The model with some arrays computed from others.

    A tied array is no longer part of the tree: it has no gradient, no optimiser state
    and no entry in a checkpoint of its own. It is computed where it is read, so the
    gradient reaches its source.

    Args:
        model: A module, described or initialised.
        ties: From a path to the path of its source, or to `(source, function)`.

    Raises:
        PathError: There is no such array, or a source is itself tied.

    Example:
        >>> class LM(nn.Module):
        ...     def __init__(self):
        ...         self.embed = nn.Embed(5, 3)
        ...         self.head = nn.Dense(5, use_bias=False)
        ...     def __call__(self, ids):
        ...         return self.head(self.embed(ids))
        >>> model = nn.tie(LM(), {"head/kernel": ("embed/embedding", jnp.transpose)})
        >>> model = nn.init(model, jax.random.key(0), jnp.array([0]))
        >>> list(nn.to_paths(model)), model.head.kernel.shape
        (['embed/embedding'], (3, 5))
    """
    __tracebackhide__ = True
    _, _, entries = slots(model)
    by_text = {entry.text: entry.path for entry in entries}
    found = list(model._spec.ties)
    targets = set(ties) | {path_text(target) for target, _, _ in found}
    sources = {path_text(source) for _, source, _ in found}
    for target, source_and_fn in ties.items():
        source, fn = (
            (source_and_fn, _same) if isinstance(source_and_fn, str) else source_and_fn
        )
        for text in (target, source):
            if text not in by_text:
                raise no_match(text, by_text)
        if source in targets or target in sources:
            tied = source if source in targets else target
            raise PathError(
                f"the source {tied!r} is tied itself.",
                code="LN-TIE-01",
                at=type(model).__name__,
                why="A source is an array of the tree.",
                fixes=_one_source(ties, found, target, source),
            )
        model = put(model, by_text[target], None)
        found.append((by_text[target], by_text[source], fn))
    return _with_ties(model, tuple(found))


def _one_source(
    ties: Mapping[str, Any], found: Any, target: str, source: str
) -> list[tuple[str, str]]:
    """Both follow what the source follows, if that is an array of the tree."""
    known = {path_text(a): path_text(b) for a, b, _ in found}
    known |= {a: b if isinstance(b, str) else b[0] for a, b in ties.items()}
    last, seen = source, {target}
    while last in known and last not in seen:
        seen.add(last)
        last = known[last]
    if last in known:
        return [(f"{source!r} is the source", f'ties = {{"{target}": "{source}"}}')]
    pairs = f'{{"{source}": "{last}", "{target}": "{last}"}}'
    return [(f"both follow {last!r}", f"ties = {pairs}")]


def _with_ties(model: Any, ties: Any) -> Any:
    children, spec = model._node
    return unflatten(spec.replace(ties=ties), children)
