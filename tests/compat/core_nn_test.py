"""Layers as functions of scopes: variables, values and errors of `flax.core.nn`."""

import jax
import jax.numpy as jnp
import pytest

from oracle import assert_same

KEY = jax.random.key(0)
RNGS = {"params": KEY, "dropout": jax.random.key(1)}
X = jnp.arange(24.0).reshape(2, 3, 4) / 10
Q = jnp.sin(jnp.arange(48.0)).reshape(2, 3, 2, 4)
GRID = Q[:, :, :, None].repeat(2, 3)
WIDE = X[:, :, None].repeat(2, 2)
PADDING = jnp.array([[1, 1, 0], [1, 0, 0]], bool)[..., None]
SEGMENTS = jnp.array([[1, 1, 2], [1, 2, 2]])
IDS = jnp.array([1, 2])


def attend(**options):
    return lambda nn, s, x: nn.multi_head_dot_product_attention(s, x, x, 2, **options)


LAYERS = {
    "dense": (X, lambda nn, s, x: nn.dense(s, x, 5)),
    "dense in bf16": (X, lambda nn, s, x: nn.dense(s, x, 5, False, jnp.bfloat16)),
    "dense of integers": (IDS[None], lambda nn, s, x: nn.dense(s, x, 4)),
    "general": (X, lambda nn, s, x: nn.dense_general(s, x, (5, 2), (-2, -1))),
    "a batch": (X, lambda nn, s, x: nn.dense_general(s, x, 5, batch_dims=(0,))),
    "two batches": (X, lambda nn, s, x: nn.dense_general(s, x, 5, batch_dims=(0, 1))),
    "no batch": (X, lambda nn, s, x: nn.dense_general(s, x, 5, batch_dims=(1,))),
    "conv": (X, lambda nn, s, x: nn.conv(s, x, 5, (3,))),
    "strided": (
        X[None],
        lambda nn, s, x: nn.conv(
            s, x, 6, (2, 2), (2, 2), "VALID", feature_group_count=2, bias=False
        ),
    ),
    "transposed": (X, lambda nn, s, x: nn.conv_transpose(s, x, 5, (3,), (2,))),
    "dilated": (
        X,
        lambda nn, s, x: nn.conv_transpose(
            s, x, 5, (3,), (2,), "VALID", kernel_dilation=(2,), bias=False
        ),
    ),
    "embedding": (IDS, lambda nn, s, x: nn.embedding(s, 7, 3).lookup(x)),
    "attended": (X, lambda nn, s, x: nn.embedding(s, 7, 4).attend(x)),
    "no indices": (X, lambda nn, s, x: nn.embedding(s, 7, 4).lookup(x)),
    "batch norm": (X, lambda nn, s, x: nn.batch_norm(s, x)),
    "averages": (X, lambda nn, s, x: nn.batch_norm(s, x, True, bias=False)),
    "channels": (X, lambda nn, s, x: nn.batch_norm(s, x, axis=(1, 2), kind="st")),
    "layer norm": (X, lambda nn, s, x: nn.layer_norm(s, x)),
    "group norm": (X, lambda nn, s, x: nn.group_norm(s, x, 2)),
    "by size": (X, lambda nn, s, x: nn.group_norm(s, x, None, 2)),
    "a wrong size": (X, lambda nn, s, x: nn.group_norm(s, x, None, 3)),
    "both": (X, lambda nn, s, x: nn.group_norm(s, x, 2, 2)),
    "dropout": (X, lambda nn, s, x: nn.dropout(s, x, 0.5)),
    "all dropped": (X, lambda nn, s, x: nn.dropout(s, x, 1.0)),
    "a key": (X, lambda nn, s, x: nn.dropout(s, x, 0.5, rng=KEY)),
    "attention": (Q, lambda nn, s, x: nn.dot_product_attention(s, x, x, x)),
    "over a grid": (
        GRID,
        lambda nn, s, x: nn.dot_product_attention(s, x, x, x, axis=(1, 2)),
    ),
    "over an axis": (
        GRID,
        lambda nn, s, x: nn.dot_product_attention(
            s, x, x, x, jnp.bfloat16, axis=1, dropout_rate=0.5
        ),
    ),
    "no axis": (Q, lambda nn, s, x: nn.dot_product_attention(s, x, x, x, axis=3)),
    "heads": (X, attend()),
    "causal": (X, attend(causal_mask=True, bias=False, out_features=6)),
    "padded": (X, attend(padding_mask=PADDING)),
    "padded twice": (X, attend(padding_mask=PADDING, key_padding_mask=~PADDING)),
    "segments": (X, attend(segmentation=SEGMENTS, padding_mask=PADDING)),
    "dropping": (X, attend(dropout_rate=0.5)),
    "two axes": (WIDE, attend(attention_axis=(1, 2), causal_mask=True)),
    "odd": (X, attend(qkv_features=5)),
    "no cache": (X, attend(cache=True)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_makes_and_computes_the_same(name):
    x, body = LAYERS[name]

    def program(library):
        nn, core = library.core.nn, library.core
        layer = lambda scope, x: body(nn, scope, x)  # noqa: E731
        y, variables = core.init(layer)(RNGS, x)
        collections = [col for col in variables if col != "params"]
        again = core.apply(layer, mutable=collections)(variables, x + x, rngs=RNGS)
        return y, variables, again

    __import__("linnet.compat.flax.core.nn")
    __import__("flax.core.nn")
    with jax.numpy_rank_promotion("allow"):  # Flax's norms need it.
        assert_same(program)


def test_a_cache_is_filled_step_by_step():
    def program(library):
        __import__(f"{library._root}.core.nn")
        nn, core = library.core.nn, library.core
        layer = lambda scope, x: attend(cache=True, causal_mask=True)(nn, scope, x)  # noqa: E731
        _, variables = core.init(layer, mutable=True)(KEY, X)
        cache = variables["cache"]["entry"]((2, 3))
        found = []
        for step in range(3):
            now = {"params": variables["params"], "cache": {"entry": cache}}
            y, new = core.apply(layer, mutable=["cache"])(now, X[:, step : step + 1])
            cache = new["cache"]["entry"]
            found.append(y)
        return found, cache.key, cache.i

    assert_same(program)


@pytest.mark.parametrize("axis", [None, (1,), (1, 2)])
@pytest.mark.parametrize("segmentation_mask", [False, True])
def test_pairs_of_positions_are_the_same(axis, segmentation_mask):
    mask = jnp.arange(12).reshape(2, 3, 2, 1) % 5

    def program(library):
        __import__(f"{library._root}.core.nn")
        return library.core.nn.attention.make_padding_mask(
            mask, mask, (2, 3, 2, 2, 4), (2, 3, 2, 2, 4), axis, segmentation_mask
        )

    assert_same(program)
