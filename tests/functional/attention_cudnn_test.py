"""attention by cuDNN: what is asked of it, and when. No GPU is needed here.

JAX's function stands in for the kernel by computing the same with XLA.
"""

import jax
import jax.numpy as jnp
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError
from linnet.functional import _attention_cudnn as cudnn

T = 6


@pytest.fixture
def asked(monkeypatch):
    """A GPU that is not there, and the options with which its kernel is called."""
    calls, compute = [], jax.nn.dot_product_attention

    def stand_in(*arrays, implementation, **options):
        assert implementation == "cudnn"
        calls.append({k: v for k, v in options.items() if v is not None})
        return compute(*arrays, implementation="xla", **options)

    monkeypatch.setattr(cudnn, "capability", lambda: 9.0)
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    return calls


def inputs(lead=(2,), features=8, dtype=jnp.bfloat16):
    shapes = [(*lead, T, heads, features) for heads in (4, 2, 2)]
    return [normal(shape, i, dtype) for i, shape in enumerate(shapes)]


def assert_same(lead=(2,), **options):
    q, k, v = inputs(lead)
    y = F.attention(q, k, v, kernel="cudnn", **options)
    assert y.dtype == jnp.bfloat16
    desired = F.attention(q, k, v, kernel="xla", **options)
    assert_close(y, desired, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize(
    ("rules", "has_mask"),
    [
        ({}, False),
        ({"causal": True}, False),
        ({"causal": True, "window": 3}, False),
        ({"window": (1, 2)}, True),
        ({"causal": True, "segments": jnp.arange(T) // 4}, True),
        ({"mask": jnp.tri(T, T, -1) > 0}, True),
        ({"bias": normal((T, T), 4), "scale": 0.5}, False),
        ({"key_positions": jnp.arange(T) - 2}, True),
    ],
)
def test_rules_become_options_of_the_kernel(asked, rules, has_mask, lead):
    assert_same(lead, **rules)
    assert ("mask" in asked[0]) == has_mask
    is_plain = rules.get("causal", False)
    assert asked[0]["is_causal"] == is_plain
    window = (rules["window"] - 1, 0) if is_plain and "window" in rules else None
    assert asked[0].get("local_window_size") == window


@pytest.mark.parametrize("rules", [{}, {"causal": True}, {"causal": True, "window": 3}])
def test_auto_takes_it_where_it_does_what_is_asked(asked, rules):
    F.attention(*inputs(), **rules)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"mask": jnp.ones((T, T), bool)},
        {"window": (1, 1)},
        {"segments": jnp.zeros(T, int)},
        {"bias": jnp.ones((T, T))},
        {"key_positions": jnp.arange(T)},
        {"softcap": 1.0},
        {"dropout_rate": 0.1, "key": jax.random.key(0)},
    ],
    ids="-".join,
)
def test_auto_leaves_the_rest_to_other_kernels(asked, options):
    F.attention(*inputs(), **options)
    assert not asked


@pytest.mark.parametrize("change", [{"dtype": jnp.float32}, {"features": 6}])
def test_auto_leaves_other_arrays_to_other_kernels(asked, change):
    F.attention(*inputs(**change))
    assert not asked


@pytest.mark.parametrize(
    ("capability", "change", "reason"),
    [
        (None, {}, "no GPU of NVIDIA"),
        (7.5, {}, "older than Ampere"),
        (9.0, {"dtype": jnp.float32}, "float32, not 16 bits"),
        (9.0, {"features": 12}, "12 features are no multiple of 8"),
        (8.0, {"features": 136}, "136 features are no multiple of 8 up to 128"),
        (9.0, {"lead": (0,)}, "empty"),
    ],
)
def test_what_it_cannot_do_is_refused(monkeypatch, capability, change, reason):
    monkeypatch.setattr(cudnn, "capability", lambda: capability)
    with pytest.raises(ConfigError, match=reason):
        F.attention(*inputs(**change), kernel="cudnn")


def test_the_fix_for_float32_works(asked):
    q, k, v = inputs(dtype=jnp.float32)
    with pytest.raises(ConfigError) as caught:
        F.attention(q, k, v, kernel="cudnn")
    scope = {"queries": q, "keys": k, "values": v, "jnp": jnp}
    exec(caught.value.fixes[1][1], scope)
    arrays = (scope[name] for name in ("queries", "keys", "values"))
    assert F.attention(*arrays, kernel="cudnn").dtype == jnp.bfloat16
    assert len(asked) == 1
