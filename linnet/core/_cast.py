"""Mixed precision: computing in one dtype while the arrays stay in another."""

from typing import Any

import jax.numpy as jnp

from linnet._errors import ConfigError
from linnet._typing import DType, PyTree
from linnet.core._node import unflatten
from linnet.core._path import Path
from linnet.core._role import Declared, Param
from linnet.core._select import map_declared, over_modules, rebuilt
from linnet.core._spec import Spec


def cast(model: PyTree, dtype: DType) -> PyTree:
    """The model computing in another dtype, with its arrays as they are.

    Modules with an option `dtype` compute in it: they cast their input and their
    parameters. In all other modules parameters are cast where they are read. The
    arrays of the tree, those of the optimiser and those in files stay in float32:
    what an optimiser step adds is not rounded away.

    Args:
        model: A module, or a pytree of modules.
        dtype: A floating dtype such as `jnp.bfloat16`, or `None` to undo it:
            every module computes in the dtype of its input and parameters again.

    Raises:
        ConfigError: `dtype` is no floating dtype.

    Example:
        >>> x = jnp.ones((1, 2))
        >>> model = nn.cast(nn.init(nn.Dense(3), jax.random.key(0), x), jnp.bfloat16)
        >>> model.kernel.dtype, model(x).dtype
        (dtype('float32'), dtype(bfloat16))
    """
    if dtype is not None:
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ConfigError(
                f"`dtype` is {jnp.dtype(dtype)}, which is no floating dtype.",
                code="LN-VALUE-05",
                fixes=[("half precision is meant", "dtype = jnp.bfloat16")],
            )
        dtype = jnp.dtype(dtype)

    def visit(module: Any, path: Path) -> Any:
        module = rebuilt(module, path, visit)
        children, spec = module._node
        if "dtype" in spec.static:
            return unflatten(_with_dtype(spec, dtype), children)
        return map_declared(module, lambda _, leaf: _computing(leaf, dtype))

    return over_modules(model, (), visit)


def _with_dtype(spec: Spec, dtype: DType) -> Spec:
    return spec.replace(static={**spec.static, "dtype": dtype})


def _computing(leaf: Declared, dtype: DType) -> Declared:
    if issubclass(leaf.thawed or leaf.role, Param) and jnp.issubdtype(
        leaf.dtype, jnp.floating
    ):
        return leaf.replace(compute_dtype=dtype)
    return leaf
