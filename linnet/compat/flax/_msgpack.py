"""Trees of arrays as MessagePack, in the bytes that Flax writes.

An array is the extension type 1 with `[shape, name of dtype, bytes]` inside, a
complex number 2 with `[real, imaginary]`, and a NumPy scalar 3, written as an array
of rank zero. An array too long for one value is a dict of numbered chunks.
"""

from typing import Any

import jax
import numpy as np

from linnet._extra import require

ARRAY, COMPLEX, SCALAR = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"


def _package() -> Any:
    return require("msgpack", "compat", "`flax.serialization`")


def packed(tree: Any) -> bytes:
    """The bytes of a tree of dicts and lists.

    Args:
        tree: With arrays, numbers, texts, bytes and None.
    """
    return _package().packb(tree, default=encoded, strict_types=True)


def unpacked(data: bytes) -> Any:
    """The tree that was packed; its arrays are NumPy arrays that cannot be changed.

    Args:
        data: As `packed` gives it.
    """
    return _package().unpackb(data, ext_hook=decoded, raw=False, strict_map_key=False)


def encoded(x: Any) -> Any:
    """Anything that MessagePack does not know, as an extension type."""
    ext = _package().ExtType
    if isinstance(x, np.ndarray | jax.Array):
        return ext(ARRAY, array_bytes(x))
    if isinstance(x, np.generic):
        return ext(SCALAR, array_bytes(x))
    if isinstance(x, complex):
        return ext(COMPLEX, _package().packb((x.real, x.imag)))
    return x  # `packb` says that it cannot serialize it


def array_bytes(x: Any) -> bytes:
    """An array as what its extension type holds."""
    values = np.asarray(x)
    if values.dtype.hasobject or values.dtype.isalignedstruct:
        raise ValueError(
            f"an array of dtype {values.dtype} cannot be serialized: its elements are "
            "Python objects or structs. Store numbers, or one array for each field."
        )
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return _package().packb((values.shape, values.dtype.name, values.tobytes("C")))


def decoded(code: int, data: bytes) -> Any:
    """What an extension type stands for."""
    if code == ARRAY:
        return array(data)
    if code == SCALAR:
        return array(data)[()]
    if code == COMPLEX:
        return complex(*_package().unpackb(data))
    return _package().ExtType(code, data)


def array(data: bytes) -> np.ndarray:
    """The array that `array_bytes` wrote; it cannot be changed."""
    shape, name, buffer = _package().unpackb(data, raw=True)
    return np.frombuffer(buffer, np.dtype(name.decode())).reshape(shape)


def with_chunks(tree: Any, max_bytes: int) -> Any:
    """The tree with every array above a size as a dict of numbered chunks.

    Dicts are changed in place; lists are not looked into.

    Args:
        tree: It may be an array itself.
        max_bytes: Of one chunk.
    """
    if isinstance(tree, np.ndarray | jax.Array):
        return _chunks(tree, max_bytes) if tree.nbytes > max_bytes else tree
    if isinstance(tree, dict):
        for key, value in tree.items():
            tree[key] = with_chunks(value, max_bytes)
    return tree


def _chunks(array: Any, max_bytes: int) -> dict[str, Any]:
    size = max(1, max_bytes // array.dtype.itemsize)
    flat = array.reshape(-1)
    return {
        CHUNKED: True,
        "shape": {str(axis): length for axis, length in enumerate(array.shape)},
        "chunks": {
            str(number): flat[start : start + size]
            for number, start in enumerate(range(0, flat.size, size))
        },
    }


def without_chunks(tree: Any) -> Any:
    """The tree with the chunks joined. Dicts are changed in place.

    Args:
        tree: As `unpacked` gives it.
    """
    if not isinstance(tree, dict):
        return tree
    if CHUNKED in tree:
        shape, chunks = _in_order(tree["shape"]), _in_order(tree["chunks"])
        return np.concatenate(chunks).reshape(shape)
    for key, value in tree.items():
        tree[key] = without_chunks(value)
    return tree


def _in_order(numbered: dict[str, Any]) -> list[Any]:
    return [numbered[str(number)] for number in range(len(numbered))]
