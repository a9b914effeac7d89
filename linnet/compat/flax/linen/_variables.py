"""A module's own variables and random streams."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from linnet.compat.flax import errors
from linnet.compat.flax.core.scope import Scope, Variable
from linnet.compat.flax.linen._adopt import ModuleBase
from linnet.compat.flax.typing import PRNGKey, VariableDict

T = TypeVar("T")


def tuple_reduce(xs: tuple[Any, ...], x: Any) -> tuple[Any, ...]:
    """The tuple with one more entry."""
    return (*xs, x)


def tuple_init() -> tuple[Any, ...]:
    """The tuple without an entry."""
    return ()


class ModuleVariables(ModuleBase):
    """The methods of a module for variables and random streams.

    A module that is not bound has neither: all of them raise `ValueError` then.
    """

    def variable(
        self,
        col: str,
        name: str,
        init_fn: Callable[..., Any] | None = None,
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Variable[Any]:
        """A reference to a variable, made by `init_fn` if it does not exist.

        Args:
            col: The collection.
            name: The name in it.
            init_fn: Makes the first value: `init_fn(*init_args, **init_kwargs)`.
            unbox: Whether the reference gives the array without metadata.
        """
        scope = self._own_scope("Variables", "variable", name, col)
        made = scope.variable(
            col, name, init_fn, *init_args, unbox=unbox, **init_kwargs
        )
        self._state.children[name] = col
        return made

    def param(
        self,
        name: str,
        init_fn: Callable[..., Any],
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Any:
        """A parameter, made by `init_fn(key, *init_args)` if it does not exist."""
        scope = self._own_scope("Parameters", "param", name, "params")
        value = scope.param(name, init_fn, *init_args, unbox=unbox, **init_kwargs)
        self._state.children[name] = "params"
        return value

    def _own_scope(self, what: str, kind: str, name: str, col: str) -> Scope:
        state = self._state
        if not (state.in_setup or state.in_compact_method or not state.is_initialized):
            raise ValueError(
                f"{what} must be initialized in `setup()` or in a method wrapped in "
                f"`@compact`"
            )
        if self.scope is None:
            raise AssertionError(
                f"{type(self).__name__} is not bound: {what.lower()} exist only inside "
                f"`init` and `apply`."
            )
        if self.scope.name_reserved(name, col):
            raise errors.NameInUseError(kind, name, type(self).__name__)
        return self.scope

    def _bound(self, message: str) -> Scope:
        if self.scope is None:
            raise ValueError(message)
        return self.scope

    def has_variable(self, col: str, name: str) -> bool:
        """Whether a variable of the module exists."""
        scope = self._bound("Can't access variables on unbound modules")
        return scope.has_variable(col, name)

    def get_variable(self, col: str, name: str, default: Any = None) -> Any:
        """The value of a variable of the module."""
        scope = self._bound("Can't access variables on unbound modules")
        return scope.get_variable(col, name, default)

    def put_variable(self, col: str, name: str, value: Any) -> None:
        """Sets a variable of the module, in a mutable collection."""
        scope = self._bound("Can't access variables on unbound modules")
        scope.put_variable(col, name, value)

    @property
    def variables(self) -> VariableDict:
        """All collections of the module."""
        return self._bound("Can't access variables on unbound modules").variables()

    @property
    def path(self) -> tuple[str, ...]:
        """The names from the root to the module."""
        return self._bound("Can't access module paths on unbound modules.").path

    def is_mutable_collection(self, col: str) -> bool:
        """Whether the collection may be changed."""
        scope = self._bound("Can't check mutability on unbound modules")
        return scope.is_mutable_collection(col)

    def has_rng(self, name: str) -> bool:
        """Whether a random stream exists."""
        return self._bound("Can't query for RNGs on unbound modules").has_rng(name)

    def make_rng(self, name: str = "params") -> PRNGKey:
        """A fresh key of a random stream."""
        return self._bound("Can't use RNGs on unbound modules").make_rng(name)

    def is_initializing(self) -> bool:
        """Whether `init` is at work."""
        scope = self._bound("Can't check if running under init() on unbound modules")
        return scope.get_flag("initializing", False)

    def sow(
        self,
        col: str,
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any] = tuple_reduce,
        init_fn: Callable[[], Any] = tuple_init,
    ) -> bool:
        """Leaves a value in a collection, if that is mutable.

        Args:
            col: The collection.
            name: The name in it.
            value: The value.
            reduce_fn: From what was left and the value; by default a tuple grows.
            init_fn: What stands for nothing left before.

        Returns:
            Whether it was left.
        """
        scope = self._bound("Can't store variables on unbound modules")
        if not scope.is_mutable_collection(col):
            return False
        if scope.has_variable(col, name):
            before = scope.get_variable(col, name)
        else:
            scope.reserve(name, col)
            self._state.children[name] = col
            before = init_fn()
        scope.put_variable(col, name, reduce_fn(before, value))
        return True

    def perturb(self, name: str, value: T, collection: str = "perturbations") -> T:
        """The value plus a zero, whose gradient is that of the value.

        The zero is made by `init`; without the collection nothing is added.
        """
        is_initializing = self.is_initializing()  # Raises where there is no scope.
        assert self.scope is not None
        if is_initializing and self.is_mutable_collection(collection):
            if not self.scope.has_variable(collection, name):
                self.scope.reserve(name, collection)
                self._state.children[name] = collection
                self.put_variable(collection, name, jax.tree.map(jnp.zeros_like, value))
        if collection in self.scope.root._variables:
            if not self.has_variable(collection, name):
                if self.is_mutable_collection(collection):
                    return value
                raise ValueError(
                    f"Perturbation collection {collection} present, but missing "
                    f"perturbation variable {name}"
                )
            zero = self.get_variable(collection, name)
            return jax.tree.map(jnp.add, value, zero)
        return value
