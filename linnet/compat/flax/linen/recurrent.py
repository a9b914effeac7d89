"""Recurrent cells, and running them over sequences."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import random

from linnet.compat.flax.core._filter import CollectionFilter, PRNGSequenceFilter
from linnet.compat.flax.core.frozen_dict import FrozenDict
from linnet.compat.flax.linen import initializers, transforms
from linnet.compat.flax.linen.activation import sigmoid, tanh
from linnet.compat.flax.linen.dtypes import promote_dtype
from linnet.compat.flax.linen.linear import Conv, Dense, default_kernel_init
from linnet.compat.flax.linen.module import Module, compact, nowrap
from linnet.compat.flax.typing import (
    Array,
    Dtype,
    Initializer,
    InOutScanAxis,
    PrecisionLike,
    PRNGKey,
)

A = TypeVar("A")
Carry = Any
CarryHistory = Any
Output = Any

__all__ = [
    "RNN",
    "Bidirectional",
    "Carry",
    "CarryHistory",
    "Conv",
    "ConvLSTMCell",
    "Dense",
    "DenseParams",
    "GRUCell",
    "LSTMCell",
    "MGUCell",
    "OptimizedLSTMCell",
    "Output",
    "RNNBase",
    "RNNCellBase",
    "SimpleCell",
    "default_kernel_init",
    "flip_sequences",
    "promote_dtype",
    "sigmoid",
    "tanh",
]

_zeros, _ones = initializers.zeros_init(), initializers.ones_init()
_orthogonal = initializers.orthogonal()


class RNNCellBase(Module):
    """A step of a recurrent network: `(carry, inputs) -> (carry, outputs)`."""

    @nowrap
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Any:
        """The carry before the first step.

        Args:
            rng: A key.
            input_shape: The shape of the inputs of a step.
        """
        raise NotImplementedError

    @property
    def num_feature_axes(self) -> int:
        """The number of axes of a single input."""
        raise NotImplementedError


class _VectorCell(RNNCellBase):
    """What cells on vectors have in common."""

    @nowrap
    def _carry(self, rng: PRNGKey, input_shape: tuple[int, ...], count: int) -> Any:
        shape = (*input_shape[:-1], self.features)
        if count == 1:
            return self.carry_init(rng, shape, self.param_dtype)
        keys = random.split(rng, count)
        return tuple(self.carry_init(key, shape, self.param_dtype) for key in keys)

    @nowrap
    def _mapped(
        self, name: str, x: Array, size: int, bias_init: Initializer | None = None
    ) -> Array:
        """`x` through the layer `name`: of inputs (`i...`) or of the state (`h...`).

        The size is that of the state given, which need not be `features`.
        """
        of_inputs = name.startswith("i")
        kernel_init = self.kernel_init if of_inputs else self.recurrent_kernel_init
        return Dense(
            features=size,
            use_bias=bias_init is not None,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init or _zeros,
            name=name,
        )(x)

    @property
    def num_feature_axes(self) -> int:
        """1."""
        return 1


class LSTMCell(_VectorCell):
    """Long short-term memory.

    Args:
        features: The size of the state.
        gate_fn: The activation of gates.
        activation_fn: The activation of candidates and outputs.
        kernel_init: Makes the kernels of inputs.
        recurrent_kernel_init: Makes the kernels of states.
        bias_init: Makes the biases.
        dtype: The type of the computation.
        param_dtype: The type of the parameters.
        carry_init: Makes the first state.
    """

    features: int
    gate_fn: Callable[..., Any] = sigmoid
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = _orthogonal
    bias_init: Initializer = _zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = _zeros

    @compact
    def __call__(self, carry: Any, inputs: Array) -> Any:
        """A step: ((cell, hidden), inputs `[..., in]`) to ((cell, hidden), hidden)."""
        c, h = carry
        size = h.shape[-1]

        def gate(name: str) -> Array:
            of_inputs = self._mapped(f"i{name}", inputs, size)
            return of_inputs + self._mapped(f"h{name}", h, size, self.bias_init)

        i, f = self.gate_fn(gate("i")), self.gate_fn(gate("f"))
        g, o = self.activation_fn(gate("g")), self.gate_fn(gate("o"))
        new_c = f * c + i * g
        new_h = o * self.activation_fn(new_c)
        return (new_c, new_h), new_h

    @nowrap
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Any:
        """(cell, hidden), for inputs of that shape."""
        return self._carry(rng, input_shape, 2)


class DenseParams(Module):
    """The parameters of a `Dense`, without its product.

    Args:
        features: The size of the new axis.
        use_bias: Whether there is a bias.
        param_dtype: The type of the parameters.
        precision: Of no effect.
        kernel_init: Makes the kernel.
        bias_init: Makes the bias.
    """

    features: int
    use_bias: bool = True
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = _zeros

    @compact
    def __call__(self, inputs: Array) -> tuple[Array, Array | None]:
        """(kernel, bias) for inputs `[..., in]`."""
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (inputs.shape[-1], self.features),
            self.param_dtype,
        )
        if not self.use_bias:
            return kernel, None
        return kernel, self.param(
            "bias", self.bias_init, (self.features,), self.param_dtype
        )


class OptimizedLSTMCell(_VectorCell):
    """`LSTMCell` with the same parameters, whose four products are computed as one.

    Args:
        features: The size of the state.
        gate_fn: The activation of gates.
        activation_fn: The activation of candidates and outputs.
        kernel_init: Makes the kernels of inputs.
        recurrent_kernel_init: Makes the kernels of states.
        bias_init: Makes the biases.
        dtype: The type of the computation.
        param_dtype: The type of the parameters.
        carry_init: Makes the first state.
    """

    features: int
    gate_fn: Callable[..., Any] = sigmoid
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = _orthogonal
    bias_init: Initializer = _zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = _zeros

    @compact
    def __call__(self, carry: Any, inputs: Array) -> Any:
        """A step: ((cell, hidden), inputs `[..., in]`) to ((cell, hidden), hidden)."""
        c, h = carry

        sides = {
            "i": (inputs, self.kernel_init, False),
            "h": (h, self.recurrent_kernel_init, True),
        }
        params = {
            side + gate: DenseParams(
                features=h.shape[-1],
                use_bias=use_bias,
                param_dtype=self.param_dtype,
                kernel_init=kernel_init,
                bias_init=self.bias_init,
                name=side + gate,
            )(x)
            for gate in "ifgo"
            for side, (x, kernel_init, use_bias) in sides.items()
        }
        of_inputs, of_hidden = (
            _joined(x, [params[side + gate] for gate in "ifgo"], self.dtype)
            for side, (x, _, _) in sides.items()
        )
        i, f, g, o = jnp.split(of_inputs + of_hidden, 4, axis=-1)
        i, f, o = self.gate_fn(i), self.gate_fn(f), self.gate_fn(o)
        g = self.activation_fn(g)
        new_c = f * c + i * g
        new_h = o * self.activation_fn(new_c)
        return (new_c, new_h), new_h

    @nowrap
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Any:
        """(cell, hidden), for inputs of that shape."""
        return self._carry(rng, input_shape, 2)


def _joined(x: Array, params: list[tuple[Array, Array | None]], dtype: Any) -> Array:
    """`x` through several dense layers in one product: their results side by side."""
    kernels, biases = zip(*params, strict=True)
    kernel = jnp.concatenate(kernels, axis=-1)
    bias = None if biases[0] is None else jnp.concatenate(biases)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=dtype)
    y = jnp.dot(x, kernel)
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


class SimpleCell(_VectorCell):
    """The recurrent cell of Elman.

    Args:
        features: The size of the state.
        activation_fn: The activation.
        kernel_init: Makes the kernel of inputs.
        recurrent_kernel_init: Makes the kernel of states.
        bias_init: Makes the bias.
        dtype: The type of the computation.
        param_dtype: The type of the parameters.
        carry_init: Makes the first state.
        residual: Whether the old state is added to the new one.
    """

    features: int
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = _orthogonal
    bias_init: Initializer = _zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = _zeros
    residual: bool = False

    @compact
    def __call__(self, carry: Any, inputs: Array) -> Any:
        """A step: (hidden, inputs `[..., in]`) to (hidden, hidden)."""
        size = carry.shape[-1]
        new_carry = self._mapped("i", inputs, size, self.bias_init)
        new_carry += self._mapped("h", carry, size)
        if self.residual:
            new_carry += carry
        new_carry = self.activation_fn(new_carry)
        return new_carry, new_carry

    @nowrap
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Any:
        """The hidden state, for inputs of that shape."""
        return self._carry(rng, input_shape, 1)


class GRUCell(_VectorCell):
    """Gated recurrent unit.

    Args:
        features: The size of the state.
        gate_fn: The activation of gates.
        activation_fn: The activation of candidates.
        kernel_init: Makes the kernels of inputs.
        recurrent_kernel_init: Makes the kernels of states.
        bias_init: Makes the biases.
        dtype: The type of the computation.
        param_dtype: The type of the parameters.
        carry_init: Makes the first state.
    """

    features: int
    gate_fn: Callable[..., Any] = sigmoid
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = _orthogonal
    bias_init: Initializer = _zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = _zeros

    @compact
    def __call__(self, carry: Any, inputs: Array) -> Any:
        """A step: (hidden, inputs `[..., in]`) to (hidden, hidden)."""
        h, size = carry, carry.shape[-1]

        def of_inputs(name: str) -> Array:
            return self._mapped(name, inputs, size, self.bias_init)

        r = self.gate_fn(of_inputs("ir") + self._mapped("hr", h, size))
        z = self.gate_fn(of_inputs("iz") + self._mapped("hz", h, size))
        n = of_inputs("in") + r * self._mapped("hn", h, size, self.bias_init)
        n = self.activation_fn(n)
        new_h = (1.0 - z) * n + z * h
        return new_h, new_h

    @nowrap
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Any:
        """The hidden state, for inputs of that shape."""
        return self._carry(rng, input_shape, 1)


class MGUCell(_VectorCell):
    """Minimal gated unit.

    Args:
        features: The size of the state.
        gate_fn: The activation of the gate.
        activation_fn: The activation of candidates.
        kernel_init: Makes the kernels of inputs.
        recurrent_kernel_init: Makes the kernels of states.
        forget_bias_init: Makes the bias of the gate.
        activation_bias_init: Makes the bias of candidates.
        dtype: The type of the computation.
        param_dtype: The type of the parameters.
        carry_init: Makes the first state.
        reset_gate: Whether the gate also resets the state.
    """

    features: int
    gate_fn: Callable[..., Any] = sigmoid
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = _orthogonal
    forget_bias_init: Initializer = _ones
    activation_bias_init: Initializer = _zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = _zeros
    reset_gate: bool = True

    @compact
    def __call__(self, carry: Any, inputs: Array) -> Any:
        """A step: (hidden, inputs `[..., in]`) to (hidden, hidden)."""
        h, size, bias_init = carry, carry.shape[-1], self.activation_bias_init
        f = self._mapped("if", inputs, size, self.forget_bias_init)
        f = self.gate_fn(f + self._mapped("hf", h, size))
        if self.reset_gate:
            kept = f * self._mapped("hn", h, size, bias_init)
        else:
            kept = self._mapped("hn", h, size)
        n = self.activation_fn(self._mapped("in", inputs, size, bias_init) + kept)
        new_h = (1.0 - f) * n + f * h
        return new_h, new_h

    @nowrap
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Any:
        """The hidden state, for inputs of that shape."""
        return self._carry(rng, input_shape, 1)


class ConvLSTMCell(RNNCellBase):
    """Long short-term memory whose products are convolutions.

    Args:
        features: The number of channels of the state.
        kernel_size: The size of the window.
        strides: The steps of the window.
        padding: As of `Conv`.
        use_bias: Whether there are biases.
        dtype: The type of the computation.
        param_dtype: The type of the parameters.
        carry_init: Makes the first state.
    """

    features: int
    kernel_size: Any
    strides: Any = None
    padding: Any = "SAME"
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = _zeros

    @compact
    def __call__(self, carry: Any, inputs: Array) -> Any:
        """A step: ((cell, hidden), inputs) to ((cell, hidden), hidden)."""
        c, h = carry
        conv = functools.partial(
            Conv,
            features=4 * self.features,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        gates = conv(name="ih")(inputs) + conv(name="hh")(h)
        i, g, f, o = jnp.split(gates, indices_or_sections=4, axis=-1)
        f = sigmoid(f + 1)
        new_c = f * c + sigmoid(i) * jnp.tanh(g)
        new_h = sigmoid(o) * jnp.tanh(new_c)
        return (new_c, new_h), new_h

    @nowrap
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Any:
        """(cell, hidden), for inputs of that shape."""
        spatial = input_shape[-self.num_feature_axes : -1]
        batch = input_shape[: -self.num_feature_axes]
        shape = (*batch, *spatial, self.features)
        first, second = random.split(rng)
        return (
            self.carry_init(first, shape, self.param_dtype),
            self.carry_init(second, shape, self.param_dtype),
        )

    @property
    def num_feature_axes(self) -> int:
        """One for each axis of the window, and that of channels."""
        return len(self.kernel_size) + 1


class RNN(Module):
    """Runs a cell over a sequence.

    Args:
        cell: The cell.
        time_major: Whether time comes before the batch.
        return_carry: Whether the last carry is returned, too.
        reverse: Whether the sequence is taken from its end.
        keep_order: Whether outputs of a reversed sequence are put in the order of the
            inputs.
        unroll: As in `jax.lax.scan`.
        variable_axes: As in `nn.scan`.
        variable_broadcast: As in `nn.scan`.
        variable_carry: As in `nn.scan`.
        split_rngs: As in `nn.scan`.
    """

    cell: RNNCellBase
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False
    unroll: int = 1
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = FrozenDict()
    variable_broadcast: CollectionFilter = "params"
    variable_carry: CollectionFilter = False
    split_rngs: Mapping[PRNGSequenceFilter, bool] = FrozenDict({"params": False})

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Any = None,
        init_key: PRNGKey | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs the cell.

        Args:
            inputs: `[batch..., time, features...]`.
            initial_carry: The first carry.
            init_key: A key for a first carry that the cell makes.
            seq_lengths: `[batch...]`, how many steps of each sequence count.
            return_carry: As the field.
            time_major: As the field.
            reverse: As the field.
            keep_order: As the field.

        Returns:
            Outputs `[batch..., time, features...]`; or (carry, outputs).
        """
        return_carry = self.return_carry if return_carry is None else return_carry
        time_major = self.time_major if time_major is None else time_major
        reverse = self.reverse if reverse is None else reverse
        keep_order = self.keep_order if keep_order is None else keep_order
        feature_axes = self.cell.num_feature_axes
        time_axis = 0 if time_major else inputs.ndim - (feature_axes + 1)
        batch_dims = (
            inputs.shape[1:-feature_axes] if time_major else inputs.shape[:time_axis]
        )
        if reverse:
            inputs = jax.tree.map(
                lambda x: flip_sequences(x, seq_lengths, len(batch_dims), time_major),
                inputs,
            )
        if initial_carry is None:
            key = random.key(0) if init_key is None else init_key
            shape = inputs.shape[:time_axis] + inputs.shape[time_axis + 1 :]
            carry = self.cell.initialize_carry(key, shape)
        else:
            carry = initial_carry
        every = return_carry and seq_lengths is not None

        def scan_fn(cell: Any, carry: Any, x: Any) -> Any:
            carry, y = cell(carry, x)
            return carry, (carry, y) if every else y

        run = transforms.scan(
            scan_fn,
            in_axes=time_axis,
            out_axes=(0, time_axis) if every else time_axis,
            unroll=self.unroll,
            variable_axes=self.variable_axes,
            variable_broadcast=self.variable_broadcast,
            variable_carry=self.variable_carry,
            split_rngs=self.split_rngs,
        )
        last, outputs = run(self.cell, carry, inputs)
        if every:
            carries, outputs = outputs
            last = _select_last_carry(carries, seq_lengths)
        if reverse and keep_order:
            outputs = jax.tree.map(
                lambda x: flip_sequences(x, seq_lengths, len(batch_dims), time_major),
                outputs,
            )
        return (last, outputs) if return_carry else outputs


def _select_last_carry(sequence: Any, seq_lengths: Any) -> Any:
    last = seq_lengths - 1

    def select(x: Array) -> Array:
        if last.ndim == 0:
            return x[last]
        index = tuple(jnp.indices(last.shape))
        return x[(last, *index)]

    return jax.tree.map(select, sequence)


def flip_sequences(
    inputs: Array, seq_lengths: Array | None, num_batch_dims: int, time_major: bool
) -> Array:
    """Turns sequences around, each within its own length.

    Args:
        inputs: The sequences.
        seq_lengths: How many steps of each count; by default all.
        num_batch_dims: The number of batch axes.
        time_major: Whether time comes before the batch.
    """
    time_axis = 0 if time_major else num_batch_dims
    max_steps = inputs.shape[time_axis]
    if seq_lengths is None:
        return jnp.flip(inputs, axis=time_axis)
    lengths = jnp.expand_dims(seq_lengths, axis=time_axis)
    steps = jnp.arange(max_steps - 1, -1, -1)
    shape = [1] * (num_batch_dims + 1)
    shape[time_axis] = max_steps
    index = (steps.reshape(shape) + lengths) % max_steps
    index = index.reshape(index.shape + (1,) * (inputs.ndim - index.ndim))
    return jnp.take_along_axis(inputs, index, axis=time_axis)


def _concatenate(a: Array, b: Array) -> Array:
    return jnp.concatenate([a, b], axis=-1)


class RNNBase(Protocol):
    """What runs over sequences as `RNN` does."""

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Any = None,
        init_key: PRNGKey | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any: ...


class Bidirectional(Module):
    """Runs one network forward and one backward, and merges their outputs.

    Args:
        forward_rnn: The network that runs forward.
        backward_rnn: The network that runs backward.
        merge_fn: Merges outputs at the same time; by default side by side.
        time_major: Whether time comes before the batch.
        return_carry: Whether the last carries are returned, too.
    """

    forward_rnn: RNNBase
    backward_rnn: RNNBase
    merge_fn: Callable[[Array, Array], Array] = _concatenate
    time_major: bool = False
    return_carry: bool = False

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Any = None,
        init_key: PRNGKey | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs both networks; arguments as of `RNN`, with a pair of carries."""
        time_major = self.time_major if time_major is None else time_major
        return_carry = self.return_carry if return_carry is None else return_carry
        keys: Any = (None, None) if init_key is None else random.split(init_key)
        carries = (None, None) if initial_carry is None else initial_carry
        if self.forward_rnn is self.backward_rnn:
            raise ValueError("forward_rnn and backward_rnn must be different modules.")
        common: dict[str, Any] = {
            "seq_lengths": seq_lengths,
            "return_carry": True,
            "time_major": time_major,
        }
        carry_f, outputs_f = self.forward_rnn(
            inputs, initial_carry=carries[0], init_key=keys[0], reverse=False, **common
        )
        carry_b, outputs_b = self.backward_rnn(
            inputs,
            initial_carry=carries[1],
            init_key=keys[1],
            reverse=True,
            keep_order=True,
            **common,
        )
        outputs = jax.tree.map(self.merge_fn, outputs_f, outputs_b)
        return ((carry_f, carry_b), outputs) if return_carry else outputs
