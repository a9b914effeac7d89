"""What rounding the weights of a model does to its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from linnet._errors import TreeError
from linnet._typing import PyTree
from linnet.core import capture
from linnet.core._convert import stored
from linnet.core._path import path_text
from linnet.core._table import modules
from linnet.nn._quantize import FLOATING, QUANTIZED, nothing_quantized


class LayerError(NamedTuple):
    """What rounding did to one layer, each as a part of the largest true entry.

    Attributes:
        weight: Largest error of the weights.
        output: Largest error of the layer's outputs in the model, where there is a
            sample: the errors of the layers before it are part of it.
    """

    weight: float
    output: float | None


class QuantizationReport(Mapping[str, LayerError]):
    """The errors of quantised layers: a mapping from path to error, shown as a table.

    Args:
        errors: From a layer's path to its error.
    """

    def __init__(self, errors: Mapping[str, LayerError]) -> None:
        self._errors = dict(errors)

    def __getitem__(self, path: str) -> LayerError:
        return self._errors[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._errors)

    def __len__(self) -> int:
        return len(self._errors)

    def __repr__(self) -> str:
        rows = [("layer", "weight", "output")]
        for path, error in self._errors.items():
            output = "" if error.output is None else f"{error.output:.2e}"
            rows.append((path or ".", f"{error.weight:.2e}", output))
        width = max(len(row[0]) for row in rows)
        return "\n".join(
            f"{path:<{width}}  {weight:>8}  {output:>8}".rstrip()
            for path, weight, output in rows
        )


def quantization_error(
    model: PyTree, quantized: PyTree, *sample: Any
) -> QuantizationReport:
    """What rounding did to each quantised layer: to its weights and to its outputs.

    Args:
        model: The model before `nn.quantize`.
        quantized: The model after.
        *sample: Arguments of the call. With none, only weights are compared.

    Returns:
        A mapping from a layer's path to a tuple `(weight, output)`, each the largest
        error as a part of the largest true entry. It prints as a table.

    Raises:
        ConfigError: No layer is quantised.
        TreeError: The models have other layers than each other.

    Example:
        >>> x = jnp.ones((1, 3))
        >>> model = nn.Sequential([nn.Dense(8), jax.nn.relu, nn.Dense(4)])
        >>> model = nn.init(model, jax.random.key(0), x)
        >>> report = nn.quantization_error(model, nn.quantize(model, nn.Dense), x)
        >>> list(report), report["layers/2"].output < 0.02
        (['layers/0', 'layers/2'], True)
    """
    __tracebackhide__ = True
    kinds = tuple(QUANTIZED.values())
    after: dict[str, Any] = {
        path_text(p): m for p, m in modules(quantized) if isinstance(m, kinds)
    }
    if not after:
        raise nothing_quantized(quantized)
    before: dict[str, Any] = {path_text(p): m for p, m in modules(model)}
    outputs = _outputs_of(model, after, sample), _outputs_of(quantized, after, sample)
    errors = {}
    for path, layer in after.items():
        other = before.get(path)
        if other is None or type(other) not in QUANTIZED:
            raise _another_model(path, layer)
        restored: Any = layer.dequantized()
        weights = stored(restored, layer.weight), stored(other, layer.weight)
        pair = [values.get(path) for values in outputs]
        output = None if pair[0] is None else _largest_error(pair[1], pair[0])
        errors[path] = LayerError(_largest_error(*weights), output)
    return QuantizationReport(errors)


def _outputs_of(model: Any, paths: Any, sample: Any) -> Mapping[str, Any]:
    if not sample:
        return {}
    _, values = capture(model, lambda path, _: path in paths)(*sample)
    return values


def _largest_error(actual: Any, desired: Any) -> float:
    """The largest difference as a part of the largest desired entry."""
    worst = largest = 0.0
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True)
    for a, d in pairs:
        wide, true = np.asarray(a, np.float64), np.asarray(d, np.float64)
        worst = max(worst, float(np.abs(wide - true).max(initial=0.0)))
        largest = max(largest, float(np.abs(true).max(initial=0.0)))
    return worst / (largest or 1.0)


def _another_model(path: str, layer: Any) -> TreeError:
    return TreeError(
        f"the other model has no {FLOATING[type(layer)].__name__} here.",
        code="LN-TREE-01",
        at=path or type(layer).__name__,
        why="Each quantised layer is compared with the one that it was made of.",
        fixes=[
            (
                "what is left of its own weights is good enough",
                "model = nn.dequantize(quantized)",
            )
        ],
    )
