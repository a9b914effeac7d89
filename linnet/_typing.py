"""The words used in signatures everywhere."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Array = jax.Array
Key = jax.Array
Shape = tuple[int, ...]
DType = Any
PyTree = Any
Initializer = Callable[[Key, Shape, DType], Array]
ArrayLike = jax.Array | np.ndarray
