"""Products in 8-bit floats: values, gradients and the scales that come with them."""

import jax
import jax.numpy as jnp
import pytest

from oracle import OURS, assert_same

pytestmark = pytest.mark.filterwarnings("ignore:The Fp8DotGeneralOp is deprecated")

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 6))
OPS = ["Fp8DotGeneralOp", "Fp8DirectDotGeneralOp", "NANOOFp8DotGeneralOp"]
E4M3, E5M2 = jnp.float8_e4m3fn, jnp.float8_e5m2
ARRAY = jnp.arange(6.0).reshape(2, 3) * 100
SCALE, HISTORY = jnp.array([2.0]), jnp.arange(4.0) * 10
DIMS = (((1,), (0,)), ((), ()))


def gradients(fn):
    """`fn(ops, array, scale, history)` and its gradients along ones."""

    def body(ops):
        given = (ARRAY, SCALE, HISTORY)
        y, backward = jax.vjp(lambda *args: fn(ops, *args), *given)
        return y, backward(jax.tree.map(jnp.ones_like, y))

    return body


FUNCTIONS = {
    "largest": lambda ops: ops.get_fp8_max(E5M2, jnp.bfloat16),
    "no float": lambda ops: ops.get_fp8_max(jnp.float32, jnp.bfloat16),
    "quantize": lambda ops: ops.quantize(ARRAY, E4M3, SCALE, jnp.float32).astype(float),
    "qdq": lambda ops: ops.qdq(ARRAY.astype("bfloat16"), E4M3, SCALE, jnp.bfloat16),
    "scale": lambda ops: ops.compute_scale(
        jnp.array([5.0, 0.0, jnp.inf, jnp.nan, 1e-30]), SCALE, 448.0, margin=1
    ),
    "history": lambda ops: ops.compute_amax_history(-ARRAY, HISTORY),
    "update": lambda ops: ops.quantize_dequantize_update(
        ARRAY, E4M3, SCALE, HISTORY, jnp.float32
    ),
    "in_qdq": gradients(lambda ops, *args: ops.in_qdq(jnp.float32, E4M3, *args)),
    "out_qdq": gradients(lambda ops, *args: ops.out_qdq(jnp.float32, E5M2, *args)),
    "scaled": gradients(
        lambda ops, x, s, h: ops.fp8_scaled_dot_general(
            x,
            x.T,
            DIMS,
            preferred_element_type=jnp.float32,
            **dict.fromkeys(["lhs_scale", "rhs_scale", "grad_scale"], s),
            **{f"{k}_amax_history": h for k in ("lhs", "rhs", "grad")},
        )
    ),
    "precision": gradients(
        lambda ops, x, s, h: ops.dot_general_with_precision(x, x.T, DIMS)
    ),
    "a type of scales": lambda ops: (
        ops.fm32,
        ops.fm32 == ops.fp32_max_grad,
        jax.lax.convert_element_type(ops.Fp8MetaTyRules.zero(ops.fm32), jnp.float32),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_does_what_it_does_in_flax(name):
    assert_same(lambda library: FUNCTIONS[name](library.linen.fp8_ops))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_a_layer_has_the_same_scales_and_gradients(op, dtype):
    def program(library):
        nn = library.linen
        dense = nn.Dense(3, dot_general_cls=getattr(nn, op), dtype=dtype)
        variables = dense.init(KEY, X)
        loss = lambda v: (dense.apply(v, X) ** 2).astype(jnp.float32).sum()  # noqa: E731
        grads = jax.grad(loss)(variables)
        scales = {"_overwrite_with_gradient": grads["_overwrite_with_gradient"]}
        return variables, grads, jax.grad(loss)({**variables, **scales})

    assert_same(program)


def test_gradients_of_shared_scales_are_the_largest():
    def program(library):
        ops = library.linen.fp8_ops
        to = jax.lax.convert_element_type

        def loss(scale, history):
            qdq = lambda x: ops.in_qdq(jnp.float32, E4M3, x, scale, history)  # noqa: E731
            return qdq(ARRAY).sum() + qdq(3 * ARRAY).sum()

        grad = jax.grad(loss, (0, 1), allow_int=True)
        found = jax.jit(grad)(to(SCALE, ops.fm32), to(HISTORY, ops.fm32))
        return [to(x, jnp.float32) for x in found]

    assert_same(program)


def test_the_older_layer_says_so():
    with pytest.warns(DeprecationWarning, match="Fp8DirectDotGeneralOp"):
        OURS.linen.Fp8DotGeneralOp()


def test_attention_in_fp8_has_the_same_variables():
    def program(library):
        nn = library.linen
        layer = nn.MultiHeadDotProductAttention(
            2,
            qk_attn_weights_einsum_cls=nn.Fp8Einsum,
            attn_weights_value_einsum_cls=nn.Fp8Einsum,
            qkv_dot_general_cls=nn.Fp8DotGeneralOp,
        )
        y, variables = layer.init_with_output(KEY, X[None])
        return y, jax.tree.map(jnp.shape, variables)

    assert_same(program)
