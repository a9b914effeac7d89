"""A type of arrays whose sum is their maximum, for the scales of 8-bit floats.

The gradient of a scale is the scale of the next step. Where a layer is used twice, its
gradients are added; in this type the largest one wins, which fits both uses.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src import core
from jax._src.dtypes import ExtendedDType
from jax._src.earray import EArray
from jax._src.interpreters import pxla


class fp8_meta_dtype(jax.dtypes.extended):
    """The kind of these types, for `jnp.issubdtype`."""


class Fp8MetaTyRules:
    """How JAX handles arrays of these types: as the floats they stand for."""

    @staticmethod
    def physical_element_aval(dtype: Any) -> Any:
        """What an element is made of."""
        return core.ShapedArray((), dtype.float_dtype)

    @staticmethod
    def global_sharded_result_handler(
        aval: Any, out_sharding: Any, committed: Any
    ) -> Any:
        """Makes an array of the buffers that a compiled function gives."""
        make = pxla.global_result_handlers[core.ShapedArray]
        handler = make(core.physical_aval(aval), out_sharding, committed)
        return lambda buffers: EArray(aval, handler(buffers))

    @staticmethod
    def convert_from(fp8_meta_dtype: Any, other_dtype: Any) -> bool:
        """Whether such an array can become one of another type."""
        return fp8_meta_dtype.float_dtype == other_dtype

    @staticmethod
    def convert_to(other_dtype: Any, fp8_meta_dtype: Any) -> bool:
        """Whether an array of another type can become such a one."""
        return fp8_meta_dtype.float_dtype == other_dtype

    @staticmethod
    def add(dt: Any, x: Any, y: Any) -> Any:
        """The larger one."""
        x, y = (lax.convert_element_type(a, dt.float_dtype) for a in (x, y))
        return lax.convert_element_type(jnp.maximum(x, y), dt)

    @staticmethod
    def zero(dt: Any) -> Any:
        """What a sum begins with: minus infinity."""
        lowest = jnp.array(-jnp.inf, dt.float_dtype)
        return lax.convert_element_type(lowest, dt)

    @staticmethod
    def tangent_dtype(dtype: Any) -> Any:
        """The type of gradients."""
        return dtype

    @staticmethod
    def full(shape: Any, fill_value: Any, dtype: Any) -> Any:
        """An array of one value."""
        return lax.convert_element_type(
            jnp.full(shape, fill_value, dtype.float_dtype), dtype
        )


@dataclasses.dataclass(frozen=True)
class fp8_meta_dtype_wrapper(ExtendedDType):
    """The type over one type of floats.

    Args:
        float_dtype: The type of floats.
    """

    float_dtype: np.dtype
    _rules: type = Fp8MetaTyRules
    type: type = fp8_meta_dtype

    @property
    def name(self) -> str:
        """The name, by the number of bits."""
        return f"fp8_meta{np.dtype(self.float_dtype).itemsize * 8}"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


fm32 = fp8_meta_dtype_wrapper(jnp.float32)
fp32_max_grad = fp8_meta_dtype_wrapper(jnp.float32)
