"""Mixtures of experts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_positive, check_size
from linnet.core._locate import locate
from linnet.functional._dtype import inexact_dtype
from linnet.functional._expert import check_top_k, expert_statistics
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._kernel import bias_param
from linnet.nn._mlp import Activation, check_activation
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal(batch_axis=0)
ROUTER_INIT = lecun_normal()


class MoE(Module):
    r"""Sends each token to a few of many perceptrons, and adds up what they return.

    $y = \sum_{k} w_k \, \mathrm{MLP}_{e_k}(x)$, with $p = \mathrm{softmax}(x R)$ in
    float32, $e_1 \ldots e_K$ the experts of the largest $p$ and $w$ these $p$, divided
    by their sum if K is above 1.

    The tokens lie along the second-to-last axis. Those of one batch entry share the
    experts' capacity, so that no entry depends on the others; who finds his expert
    full gets nothing from it. First choices come before second ones, earlier tokens
    before later ones. A capacity therefore lets a token depend on later ones; without
    one (`capacity_factor=None`) no token is dropped and none depends on another, as
    decoding step by step needs: `moe.replace(capacity_factor=None)` has the same
    parameters.

    Args:
        num_experts: Number E of experts.
        hidden: Size F of the hidden layer of each expert.
        top_k: Number K of experts of each token.
        capacity_factor: Tokens that an expert takes, as a multiple of its mean share
            K T / E. `None` for as many as come to it; derivatives are then taken in
            reverse mode only. With the axis "experts" spread over devices, a capacity
            is much the faster.
        out_features: Size O of the last axis of the result. `None` takes that of `x`.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        shared: A module that every token goes to besides, whose result is added.
        renormalize: Whether the weights of a token sum to 1, if K is above 1.
        router_jitter: In training the router sees each feature scaled by up to this
            much up or down, `0 <= router_jitter < 1`.
        activation: Between the layers of an expert: a function or a module.
        gated: Whether the hidden layer has a gate, as in `nn.MLP`.
        use_bias: Whether the experts have biases. The router has none.
        dtype: Of the experts' computation and the result. `None` takes the one to
            which `x` and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the experts' products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of the experts' kernels, of shape `[E, in, out]`.
        bias_init: Initialiser of the biases.
        router_init: Initialiser of the router's kernel.

    Parameters:
        router: Its `kernel` is `[I, E]`, logical axes `("in", "experts")`.
        hidden: Its `kernel` is `[E, I, F]` and its `bias` `[E, F]`, logical axes
            `("experts", "in", "out")` and `("experts", "out")`.
        gate: The same, if gated.
        out: The same with `[E, F, O]` and `[E, O]`.
        shared: Those of the module.

    Shapes:
        x: `[..., T, I]`  ->  `[..., T, O]`

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans, or the mask no booleans.
        ScopeError: In training, `router_jitter` is not 0 and no key was given.
        ShapeError: The last axis of `x` is not I, the mask does not fit, or `shared`
            returns something of another width.

    Example:
        What routers are trained with is sown, and collected by `nn.capture`:

        >>> x = jax.random.normal(jax.random.key(1), (2, 16, 8))
        >>> model = nn.Sequential([nn.MoE(4, 32), nn.LayerNorm()])
        >>> model = nn.init(model, jax.random.key(0), x)
        >>> COEFFICIENTS = {"load_balancing_loss": 1e-2, "router_z_loss": 1e-3}
        >>> def loss_fn(model, x, key):
        ...     call = nn.capture(nn.training(model, key), "**/*_loss")
        ...     (y, model), sown = call(x)
        ...     loss = (y**2).mean()
        ...     for path, value in sown.items():
        ...         loss += COEFFICIENTS[path.split("/")[-1]] * value.sum()
        ...     return loss, model
        >>> step = nn.grad(loss_fn, has_aux=True)
        >>> grads, model = step(model, x, jax.random.key(2))
        >>> grads.layers[0].router.kernel.shape
        (8, 4)

        Also sown: `expert_share`, `[E]`, the share of the choices that each expert
        was given, and `dropped`, the share that found no room.

    Differs from: PyTorch and Flax Linen: they have none.
    Source: Shazeer et al., "Outrageously Large Neural Networks", 2017, eq. 1,
    arXiv:1701.06538. Capacity: Lepikhin et al., "GShard", 2020, algorithm 1,
    arXiv:2006.16668. Losses: Fedus, Zoph and Shazeer, "Switch Transformers", 2021,
    eq. 4, arXiv:2101.03961; Zoph et al., "ST-MoE", 2022, eq. 5, arXiv:2202.08906.
    Shared experts: Dai et al., "DeepSeekMoE", 2024, eq. 9, arXiv:2401.06066.
    """

    def __init__(
        self,
        num_experts: int,
        hidden: int,
        *,
        top_k: int = 2,
        capacity_factor: float | None = 1.25,
        out_features: int | None = None,
        in_features: int | None = None,
        shared: Module | None = None,
        renormalize: bool = True,
        router_jitter: float = 0.0,
        activation: Activation = jax.nn.gelu,
        gated: bool = False,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
        router_init: Initializer = ROUTER_INIT,
    ) -> None:
        size_in = check_size(self, "in_features", in_features, allow_none=True)
        size_out = check_size(self, "out_features", out_features, allow_none=True)
        size = check_size(self, "hidden", hidden)
        self.num_experts = check_size(self, "num_experts", num_experts)
        self.top_k = check_size(self, "top_k", top_k)
        with placed(type(self).__name__):
            check_top_k(self.top_k, self.num_experts)
        self.capacity_factor = (
            None
            if capacity_factor is None
            else check_positive(self, "capacity_factor", capacity_factor)
        )
        self.renormalize = renormalize
        self.router_jitter = _check_jitter(router_jitter)
        self.activation = check_activation(self, activation)
        options: dict[str, Any] = {
            "use_bias": use_bias,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "precision": precision,
            "kernel_init": kernel_init,
            "bias_init": bias_init,
        }
        experts = self.num_experts
        self.router = Router(size_in, experts, param_dtype, router_init)
        self.hidden = Experts(experts, size_in, size, **options)
        self.gate = Experts(experts, size_in, size, **options) if gated else None
        self.out = Experts(experts, size, size_out, **options)
        self.shared = _check_shared(shared)

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Applies the layer.

        Args:
            x: `[..., T, I]`, or `[I]` for one token.
            mask: `[..., T]`, booleans. `False` goes to no expert, takes no room and
                gets zeros (from `shared`, what it gives).
        """
        self.check_input(x, min_ndim=1, dtype="floating")
        if x.ndim == 1:
            mask = None if mask is None else mask[None]
            return self._route(x[None], mask)[0]
        return self._route(x, mask)

    def _route(self, x: Any, mask: ArrayLike | None) -> Array:
        with placed(self):
            logits = self.router(x, self._jitter_key(), self.router_jitter)
            routing = F.top_k_routing(
                logits, self.top_k, mask=mask, renormalize=self.renormalize
            )
            capacity = self._capacity(x.shape[-2])
            where = F.expert_slots(routing.experts, self.num_experts, capacity)
            self._sow(logits, routing, where, mask)
            h = F.expert_dispatch(x, where)  # [..., X, B, I]
            h = self._experts(h, where.experts, x.shape[-1])  # [..., X, B, O]
            y = F.expert_combine(h, routing.weights, where)  # [..., T, O]
        if self.shared is None:
            return y
        shared = self.shared(x)
        if shared.shape != y.shape:
            raise _other_width(self, y, shared)
        return y + shared

    def _experts(self, x: Array, owners: Array | None, size_in: int) -> Array:
        h = self.activation(
            self.hidden(x, owners) if self.gate is None else self.gate(x, owners)
        )
        if self.gate is not None:
            h = h * self.hidden(x, owners)
        return self.out(h, owners, size_in)

    def _jitter_key(self) -> Any:
        wanted = self.training and self.router_jitter > 0
        return self.rng("router") if wanted else None

    def _capacity(self, tokens: int) -> int | None:
        if self.capacity_factor is None:
            return None
        return F.expert_capacity(
            tokens, self.num_experts, self.top_k, self.capacity_factor
        )

    def _sow(
        self,
        logits: Array,
        routing: F.Routing,
        where: F.ExpertSlots,
        mask: ArrayLike | None,
    ) -> None:
        chosen = routing.experts
        loss = F.load_balancing_loss(routing.probabilities, chosen, mask=mask)
        self.sow("load_balancing_loss", loss)
        self.sow("router_z_loss", F.router_z_loss(logits, mask=mask))
        share, dropped = expert_statistics(chosen, where, self.num_experts)
        self.sow("expert_share", share)
        self.sow("dropped", dropped)


class Router(Module):
    """Scores the experts for each token."""

    def __init__(
        self, size_in: int | None, experts: int, dtype: DType, init: Initializer
    ) -> None:
        self.experts = experts
        self.kernel = param(init, (size_in, experts), dtype, axes=("in", "experts"))

    def __call__(self, x: ArrayLike, key: Array | None, jitter: float) -> Array:
        self.expect(kernel=(x.shape[-1], self.experts))
        return F.router_logits(x, self.kernel, key=key, jitter=jitter)


class Experts(Module):
    """One dense layer of each expert."""

    def __init__(
        self,
        experts: int,
        size_in: int | None,
        size_out: int | None,
        *,
        use_bias: bool,
        dtype: DType | None,
        param_dtype: DType,
        precision: lax.PrecisionLike,
        kernel_init: Initializer,
        bias_init: Initializer,
    ) -> None:
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        self.experts = experts
        self.features = size_out
        shape, axes = (experts, size_in, size_out), ("experts", "in", "out")
        self.kernel = param(kernel_init, shape, param_dtype, axes=axes)
        self.bias = bias_param(use_bias, bias_init, shape[::2], param_dtype, axes[::2])

    def __call__(
        self, x: ArrayLike, owners: Array | None, width: int | None = None
    ) -> Array:
        """Applies the layer.

        Args:
            x: `[..., X, B, I]`.
            owners: `[X]`, whose each block is; `None` if block x is of expert x.
            width: Size O of the last axis of the result, where not known before.
        """
        size: Any = width if self.features is None else self.features
        self.expect(kernel=(self.experts, x.shape[-1], size), bias=(self.experts, size))
        with placed(self):
            return F.expert_dense(
                x,
                self.kernel,
                self.bias,
                experts=owners,
                dtype=self.dtype,
                precision=self.precision,
            )


def _check_shared(shared: Any) -> Any:
    if shared is None or callable(shared):
        return shared
    raise ConfigError(
        f"`shared` is {shared!r}, but it must be a module.",
        code="LN-VALUE-04",
        at="MoE",
        fixes=[("a perceptron is meant", "shared = nn.MLP(8)")],
    )


def _check_jitter(jitter: float) -> float:
    if not 0 <= jitter < 1:
        raise ConfigError(
            f"`router_jitter` is {jitter!r}, but it must be in [0, 1).",
            code="LN-VALUE-02",
            at="MoE",
            why="Features are scaled by 1 - router_jitter to 1 + router_jitter.",
            fixes=[("a little noise is meant", "router_jitter = 0.01")],
        )
    return jitter


def _other_width(module: Module, y: Array, shared: Any) -> ShapeError:
    code = f"shared = nn.MLP(8, out_features={y.shape[-1]})"
    return ShapeError(
        f"`shared` returns {describe(shared)}, which cannot be added to {describe(y)}.",
        code="LN-SHAPE-01",
        at=locate(module),
        why="What every token gets is added to what its own experts return.",
        fixes=[("it should be as wide as they are", code)],
    )
