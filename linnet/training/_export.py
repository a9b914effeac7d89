"""Models as files that others can use: safetensors, and compiled programs."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet import nn
from linnet._errors import ConfigError
from linnet._extra import require
from linnet._typing import Array, PyTree


def save_weights(
    path: str | os.PathLike[str],
    model: PyTree,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes the arrays of a model as safetensors, by their paths.

    Args:
        path: Of the file.
        model: An initialised module, or a pytree of modules.
        metadata: What JSON holds, by name.

    Raises:
        ExtraError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/dense.safetensors"
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> training.save_weights(path, model, metadata={"features": 3})
        >>> arrays, metadata = training.load_weights(path)
        >>> nn.from_paths(nn.Dense(3), arrays) == model, metadata
        (True, {'features': 3})
    """
    __tracebackhide__ = True
    numpy = require("safetensors.numpy", "checkpoint", "`training.save_weights`")
    arrays = {p: np.asarray(a, order="C") for p, a in nn.to_paths(model).items()}
    texts = {name: json.dumps(value) for name, value in (metadata or {}).items()}
    numpy.save_file(arrays, os.fspath(path), metadata={"format": "linnet"} | texts)


def load_weights(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Reads a file of safetensors: arrays by path, and the metadata.

    `nn.from_paths` puts the arrays into a model.

    Args:
        path: Of the file.

    Raises:
        ExtraError: safetensors is not installed.
    """
    safetensors = require("safetensors", "checkpoint", "`training.load_weights`")
    with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
        names = list(file.keys())
        arrays = {name: jnp.asarray(file.get_tensor(name)) for name in names}
        texts = dict(file.metadata() or {})
    if texts.pop("format", None) != "linnet":
        return arrays, texts
    return arrays, {name: json.loads(text) for name, text in texts.items()}


def export(
    path: str | os.PathLike[str],
    model: Any,
    *sample: Any,
    batch: bool = True,
    weights: bool = True,
    platforms: Sequence[str] | None = None,
    method: str | None = None,
) -> None:
    """Writes a prediction as a compiled program that needs neither model nor Linnet.

    The file is read by JAX alone:

        from jax import export
        call = export.deserialize(open(path, "rb").read()).call
        y = call(x)

    Args:
        path: Of the file.
        model: An initialised module.
        *sample: Arguments of the call; shapes are enough. Its other arguments keep
            these shapes.
        batch: Whether the first axis of every argument is the batch, of any size.
        weights: Whether the arrays of the model are in the file. If not, the first
            argument of the call is a dict of them by path, as `load_weights` gives.
        platforms: For which it is made, as `("cpu", "cuda", "tpu")`; by default the
            present one.
        method: What is called; `__call__` by default.

    Raises:
        ConfigError: There is no sample.
        InitError: The model has no arrays yet.

    Example:
        >>> import pathlib, tempfile
        >>> path = tempfile.mkdtemp() + "/dense.jax"
        >>> x = jnp.ones((2, 3))
        >>> model = nn.init(nn.Dense(4), jax.random.key(0), x)
        >>> training.export(path, model, x)
        >>> call = jax.export.deserialize(pathlib.Path(path).read_bytes()).call
        >>> call(jnp.ones((5, 3))).shape
        (5, 4)
    """
    __tracebackhide__ = True
    if not sample:
        raise ConfigError(
            "no arguments of the call were given.",
            code="LN-EXPORT-01",
            at="export",
            why="A program is made for the shapes of its arguments.",
            fixes=[("the model takes `x`", "training.export(path, model, x)")],
        )
    from jax import export as jax_export

    scope = jax_export.SymbolicScope()

    def described(x: Any) -> jax.ShapeDtypeStruct:
        shape: Any = tuple(np.shape(x))
        if batch and shape:
            (size,) = jax_export.symbolic_shape("b", scope=scope)
            shape = (size, *shape[1:])
        return jax.ShapeDtypeStruct(shape, x.dtype)

    args = jax.tree.map(described, sample)
    call: Any = _method(model, method) if weights else _beside(model, method)
    inside = () if weights else (nn.to_paths(nn.abstract(model)),)
    made = jax_export.export(jax.jit(call), platforms=platforms)(*inside, *args)
    pathlib.Path(path).write_bytes(made.serialize())


def _method(model: Any, method: str | None) -> Any:
    def predict(*args: Any) -> Any:
        return (model if method is None else getattr(model, method))(*args)

    return predict


def _beside(model: Any, method: str | None) -> Any:
    description = nn.describe(model)

    def predict(arrays: Mapping[str, Array], *args: Any) -> Any:
        return _method(nn.from_paths(description, arrays), method)(*args)

    return predict
