"""Many copies of one module: layers one after another, or models side by side."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, TreeError
from linnet.core._call import instance_text
from linnet.core._check import check_size
from linnet.core._loop import check_carry, scan
from linnet.core._map import vmap
from linnet.core._module import Module
from linnet.core._node import is_declared, is_module
from linnet.core._table import slots
from linnet.core._transform import remat
from linnet.core._tree import refuse_described


class Stacked(Module):
    """What `Stack` and `Ensemble` have in common: a module whose arrays are stacked.

    `block` has the configuration of one copy. Each of its arrays has one more leading
    axis, of the size `size`.
    """

    _stack_axis = "stack"
    block: Any
    size: int

    def _setup(self, block: Any, size: int, size_name: str) -> None:
        if not is_module(block):
            is_class = isinstance(block, type)
            what = f"{'the class' if is_class else 'a'} "
            what += (block if is_class else type(block)).__name__
            raise ConfigError(
                f"`{type(self).__name__}` repeats a module, not {what}.",
                code="LN-STACK-02",
                at=type(self).__name__,
                fixes=self._instead_of(block, size),
            )
        leaves, treedef, entries = slots(block)
        given = [not is_declared(leaf) for leaf in leaves]
        if any(
            is_given and entry.declared is not None and entry.declared.init is not None
            for is_given, entry in zip(given, entries, strict=True)
        ):
            raise ConfigError(
                f"the module given to `{type(self).__name__}` has arrays already.",
                code="LN-STACK-03",
                at=type(self).__name__,
                fixes=[
                    (
                        "all copies should have arrays of their own, made by `nn.init`",
                        f"{self._made()}(nn.describe(block), {size})",
                    ),
                    (
                        "all copies should start from these arrays",
                        f"{self._made()}.of([block] * {size})",
                    ),
                ],
            )
        self.size = check_size(self, size_name, size)
        self.block = treedef.unflatten(
            [
                jnp.broadcast_to(leaf, (self.size, *leaf.shape)) if is_given else leaf
                for leaf, is_given in zip(leaves, given, strict=True)
            ]
        )

    def _made(self) -> str:
        name = type(self).__name__
        return f"{name.lower()} = nn.{name}"

    def _instead_of(self, block: Any, size: Any) -> list[tuple[str, str]]:
        if isinstance(block, list | tuple):
            return [
                (
                    "the modules are initialised and differ in their arrays only",
                    f"{self._made()}.of(block)",
                ),
                ("the layers differ", "model = nn.Sequential(block)"),
            ]
        if isinstance(block, type) and is_module(object.__new__(block)):
            return [
                (
                    "the class is to be instantiated",
                    f"{self._made()}({instance_text(block)}, {size!r})",
                )
            ]
        code = f"{self._made()}(nn.Dense(4), {size!r})"
        return [("one module is the pattern for all", code)]

    @classmethod
    def of(cls, modules: Sequence[Any], **options: Any) -> Any:
        """Stacks modules of one configuration.

        Args:
            modules: Initialised modules that differ in their arrays only.
            **options: Of the constructor.

        Raises:
            TreeError: The modules differ in more than their arrays.
        """
        modules = list(modules)
        check_size(cls.__name__, "len(modules)", len(modules))
        for module in modules:
            refuse_described(module)
            if jax.tree.structure(module) != jax.tree.structure(modules[0]):
                raise TreeError(
                    "the modules differ in more than their arrays.",
                    code="LN-STACK-04",
                    at=cls.__name__,
                    why="A stack runs one program on stacked arrays.",
                    fixes=[("they stay apart", "outs = [m(x) for m in modules]")]
                    if issubclass(cls, Ensemble)
                    else [("they stay apart", "model = nn.Sequential(modules)")],
                )
        from linnet.core._init import describe

        stack = cls(describe(modules[0]), len(modules), **options)
        block = jax.tree.map(lambda *arrays: jnp.stack(arrays), *modules)
        return stack.replace(block=block)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            size = len(range(self.size)[index])
            check_size(self, "size of the slice", size)
            block = jax.tree.map(lambda array: array[index], self.block)
            return self.replace(block=block, size=size)
        if not -self.size <= index < self.size:
            raise IndexError(f"index {index} of {type(self).__name__} of {self.size}")
        return jax.tree.map(lambda array: array[index], self.block)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self.size))


class Stack(Stacked):
    """Layers of one kind, one after another, compiled as one.

    The arrays of the layers are stacked along a first axis, and `jax.lax.scan` runs
    over it, so that compile time does not grow with depth. `stack[3]` is a layer,
    `stack[2:]` a shorter stack, `list(stack)` the layers, and `nn.Stack.of(layers)`
    stacks them again. `stack.replace(unroll=True)` changes how it runs, nothing else.

    Args:
        block: The layer, not initialised. It returns what looks like its input.
        depth: Number of layers.
        remat: Whether to recompute each layer in the backward pass; a policy of
            `jax.checkpoint_policies` says what to keep.
        unroll: Layers in one iteration of the loop; `True` for no loop.

    Raises:
        ConfigError: `block` is no module or has arrays, or `depth` is below one.
        ShapeError: A layer returns another shape or dtype than it takes.

    Example:
        >>> x = jnp.ones((2, 4))
        >>> stack = nn.init(nn.Stack(nn.Dense(4), 3), jax.random.key(0), x)
        >>> stack.block.kernel.shape, stack[1].kernel.shape
        ((3, 4, 4), (4, 4))
        >>> stack(x).shape
        (2, 4)
    """

    _stack_axis = "layers"

    def __init__(
        self,
        block: Any,
        depth: int,
        *,
        remat: Any = False,
        unroll: int | bool = 1,
    ) -> None:
        self._setup(block, depth, "depth")
        self.remat = remat
        self.unroll = unroll

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Sends `x` through all layers.

        Args:
            x: Input of the first layer; any pytree of arrays.
            *args: More arguments, the same for each layer.
            **kwargs: Likewise.
        """
        __tracebackhide__ = True

        def run(x: Any, layer: Any) -> tuple[Any, None]:
            out = self._rematerialised(layer)(x, *args, **kwargs)
            check_carry(layer, x, out, self.size)
            return out, None

        out, _ = scan(run, x, self.block, self.size, unroll=self.unroll)
        return out

    def _rematerialised(self, layer: Any) -> Any:
        if self.remat is False or self.remat is None:
            return layer
        policy = None if self.remat is True else self.remat
        # Without a loop XLA would find the same values twice, and keep them.
        return remat(layer, policy=policy, prevent_cse=self.unroll is True)


class Ensemble(Stacked):
    """Models of one kind, side by side, run by one `jax.vmap`.

    Each has its own initial values, randomness and state. `ensemble[3]` is one of
    them, `ensemble[:2]` a smaller ensemble.

    Args:
        block: The model, not initialised.
        size: Number of models.
        in_axis: Axis of the inputs along which each model gets its own; `None` gives
            the same input to all.

    Raises:
        ConfigError: `block` is no module or has arrays, or `size` is below one.

    Example:
        >>> x = jnp.ones((2, 4))
        >>> many = nn.init(nn.Ensemble(nn.Dense(3), 5), jax.random.key(0), x)
        >>> many(x).shape
        (5, 2, 3)
    """

    _stack_axis = "members"

    def __init__(self, block: Any, size: int, *, in_axis: int | None = None) -> None:
        self._setup(block, size, "size")
        self.in_axis = in_axis

    def __call__(self, *args: Any) -> Any:
        """Calls every model.

        Args:
            *args: Inputs: the same for all models, or one for each along `in_axis`.

        Returns:
            What the models return, stacked along a first axis.
        """
        __tracebackhide__ = True
        axes = (0, *(self.in_axis for _ in args))
        run = vmap(lambda member, *args: member(*args), axes, axis_size=self.size)
        return run(self.block, *args)
