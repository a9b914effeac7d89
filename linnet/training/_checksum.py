"""Checksums of arrays, computed where they lie: the same for every sharding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linnet._typing import Array


def checksums(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The checksum of each array, in NumPy.

    One after the other: the collective sums of many programs that wait for one another
    can take up all threads of a CPU with several devices.
    """
    return {path: jax.device_get(checksum(x)) for path, x in arrays.items()}


def checksum(x: Any) -> Array:
    """Two numbers of 32 bits that depend on every bit of an array and on its place.

    Sums modulo 2^32 of the bits of each entry, multiplied by an odd number that its
    index gives: no order of adding changes them, so that an array on eight devices has
    the checksum that it has on one, without being put together.

    Args:
        x: Any shape and dtype, keys excepted.
    """
    return _sums(jnp.asarray(x))


@jax.jit
def _sums(x: Array) -> Array:
    place = jnp.zeros((1,) * x.ndim, jnp.uint32)
    for axis in range(x.ndim):
        count = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        place = place * jnp.uint32(x.shape[axis] & 0xFFFFFFFF) + count
    sums = []
    for number in (0x9E3779B1, 0x85EBCA77):
        total = jnp.uint32(0)
        for i, bits in enumerate(_words(x)):
            weight = _mixed((place + jnp.uint32(i * 0x27D4EB2F)) * jnp.uint32(number))
            total += jnp.sum(_mixed(bits ^ weight) * (weight | 1), dtype=jnp.uint32)
        sums.append(total)
    return jnp.stack(sums)


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 15)) * jnp.uint32(0x2C1B3C6D)
    return x ^ (x >> 12)


def _words(x: Array) -> list[Array]:
    """The bits of each entry, as one or more unsigned numbers of 32 bits."""
    if x.dtype == jnp.bool_:
        return [x.astype(jnp.uint32)]
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return [*_words(x.real), *_words(x.imag)]
    bits = jnp.finfo(x.dtype).bits if _is_float(x) else jnp.iinfo(x.dtype).bits
    if bits < 8:
        return [x.astype(jnp.int8).astype(jnp.uint32)]
    if bits <= 32:
        narrow = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bits]
        return [jax.lax.bitcast_convert_type(x, narrow).astype(jnp.uint32)]
    halves = jax.lax.bitcast_convert_type(x, jnp.uint32)  # [..., 2]
    return [halves[..., 0], halves[..., 1]]


def _is_float(x: Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))
