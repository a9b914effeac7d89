"""Errors of attention, and of the caches that decoding has."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-CACHE-01",
        "plain call",
        """
        model = nn.Sequential([nn.Attention(2, head_dim=4, causal=True)])
        x = x[:, None]
        model = nn.with_cache(nn.init(model, key, x), 4, 16)
        out = model(x)
        """,
        instead("assert model[0].cache.index.length.tolist() == [1] * 4"),
        instead("assert out.shape == x.shape"),
        start="layers[0] (Attention): a model with a cache was called in a plain call.",
    ),
    case(
        "LN-CACHE-01",
        "training",
        """
        model = nn.Sequential([nn.Attention(2, head_dim=4, causal=True)])
        x = x[:, None]
        model = nn.with_cache(nn.init(model, key, x), 4, 16)
        out, model = nn.training(model)(x)
        """,
        instead("assert model[0].cache.index.length.tolist() == [1] * 4"),
        before("out, model = nn.training(model)(x)", "assert out.shape == x.shape"),
        start="layers[0] (Attention): a model with a cache was called in a training",
    ),
    case(
        "LN-CACHE-01",
        "mask",
        """
        model = nn.Attention(2, head_dim=4, causal=True)
        x, lengths = x[:, None], jnp.array([1, 1, 0, 1])
        model = nn.with_cache(nn.init(model, key, x), 4, 16)
        mask = jnp.array([True, True, False, True])[:, None, None, None]
        out, model = nn.stateful(model)(x, mask=mask)
        """,
        before(
            "out, model = nn.stateful(model)(x, mask=mask)",
            "assert model.cache.index.length.tolist() == [1, 1, 0, 1]",
        ),
        before(
            "out, model = nn.stateful(model)(x, mask=mask)",
            "assert out.shape == x.shape",
        ),
        start="(Attention): `mask` was given to a layer with a cache.",
    ),
    case(
        "LN-CACHE-01",
        "other sequences",
        """
        model = nn.Attention(2, head_dim=4, causal=True)
        max_length = 16
        model = nn.with_cache(nn.init(model, key, x), 3, max_length)
        x = x[:, None]
        out, model = nn.stateful(model)(x)
        """,
        before(
            "out, model = nn.stateful(model)(x)",
            "assert model.cache.index.length.tolist() == [1] * 4",
        ),
        start="(Attention): `x` is float32[4, 1, 7], but the cache has 3 rows:",
    ),
    case(
        "LN-CACHE-01",
        "no batch",
        """
        model = nn.Attention(2, head_dim=4, causal=True)
        model = nn.with_cache(nn.init(model, key, x), 1, 16)
        out, model = nn.stateful(model)(x)
        """,
        before("out, model = nn.stateful(model)(x)", "assert out.shape == (1, 4, 7)"),
        start="(Attention): `x` is float32[4, 7], but the cache has 1 row:",
    ),
    case(
        "LN-CACHE-01",
        "no batch, but rows",
        """
        model = nn.Attention(2, head_dim=4, causal=True)
        model = nn.with_cache(nn.init(model, key, x), 2, 16)
        out, model = nn.stateful(model)(x)
        """,
        before("out, model = nn.stateful(model)(x)", "assert out.shape == (2, 4, 7)"),
        start="(Attention): `x` is float32[4, 7], but the cache has 2 rows:",
    ),
    case(
        "LN-CACHE-01",
        "keys of other sizes",
        """
        cache = nn.KVCache(1, 4, num_kv_heads=2, head_dim=3)
        keys = jnp.ones((1, 2, 1, 3))
        out, cache = nn.stateful(cache.extend)(keys, keys, jnp.array([[0, 1]]))
        """,
        swap(
            "cache = nn.KVCache(1, 4, num_kv_heads=2, head_dim=3)",
            check="assert cache.index.length == 2",
        ),
        start="(KVCache): `keys` is float32[1, 2, 1, 3], but this cache takes",
    ),
    case(
        "LN-CACHE-01",
        "limits of other rows",
        """
        model = nn.CacheIndex(2)
        lengths = jnp.array([3, 4, 5])
        model = nn.limit_cache(model, lengths)
        """,
        before(
            "model = nn.limit_cache(model, lengths)",
            "assert model.limit.tolist() == [3, 4]",
        ),
        before(
            "model = nn.limit_cache(model, lengths)",
            "assert model.limit.tolist() == [3, 3]",
        ),
        start="`lengths` is int32[3], but the cache has 2 rows.",
    ),
    case(
        "LN-CACHE-01",
        "looking ahead",
        """
        class Model(nn.Module):
            def __init__(self, attention):
                self.encoder = attention
                self.decoder = nn.Attention(1, causal=True)
            def __call__(self, x):
                return self.decoder(self.encoder(x))
        attention = nn.Attention(1)
        x = x[None]
        model = nn.with_cache(nn.init(Model(attention), key, x), 1, 8)
        out, model = nn.stateful(model)(x)
        """,
        instead("assert out.shape == (1, 4, 7)"),
        before("out, model = nn.stateful(model)(x)", "assert out.shape == (1, 4, 7)"),
        swap(
            "attention = nn.Attention(1)",
            check="assert model.encoder.cache.index.length == 4",
        ),
        start="encoder (Attention): self-attention that is not causal was called in a",
    ),
    case(
        "LN-CACHE-02",
        "not causal",
        """
        attention = nn.Attention(4)
        x = jnp.ones((2, 3, 8))
        model = nn.with_cache(nn.init(attention, key, x), 2, 16)
        """,
        swap("attention = nn.Attention(4)", check="assert model.cache is not None"),
        start="Attention: no module of the model has use for a cache.",
    ),
    case(
        "LN-CACHE-02",
        "no cache",
        """
        x = jnp.ones((2, 3, 8))
        model = nn.init(nn.Attention(4, causal=True), key, x)
        model = nn.reorder_cache(model, jnp.array([1, 0]))
        """,
        before(
            "model = nn.reorder_cache(model, jnp.array([1, 0]))",
            "assert model.cache.keys.shape[0] == 2",
        ),
        start="Attention: the model has no cache.",
    ),
    case(
        "LN-VALUE-06",
        "heads that cannot be shared",
        """
        num_kv_heads = 4
        model = nn.Attention(6, num_kv_heads=num_kv_heads)
        """,
        swap("num_kv_heads = 4", check="assert model.num_kv_heads == 3"),
        swap("num_kv_heads = 4", check="assert model.num_kv_heads == 6"),
        start="Attention: `num_kv_heads` is 4, which does not divide 6",
    ),
    case(
        "LN-VALUE-06",
        "fused projections of a context",
        """
        class Block(nn.Module):
            def __init__(self, fused_qkv):
                self.attention = nn.Attention(1, fused_qkv=fused_qkv)
            def __call__(self, x, context):
                return self.attention(x, context)
        fused_qkv, context = True, jnp.ones((3, 7))
        out = nn.abstract(Block(fused_qkv), x, context)
        """,
        before(
            "out = nn.abstract(Block(fused_qkv), x, context)",
            "assert out.attention.key.kernel.shape == (7, 7)",
        ),
        before(
            "out = nn.abstract(Block(fused_qkv), x, context)",
            "assert out.attention.qkv.kernel.shape == (7, 21)",
        ),
        start="attention (Attention): `context` was given, but `fused_qkv` is True.",
    ),
    case(
        "LN-VALUE-06",
        "window without causality",
        """
        causal, window = False, 4
        model = nn.Attention(2, causal=causal, window=window)
        """,
        before(
            "model = nn.Attention(2, causal=causal, window=window)",
            "assert model.causal and model.window == 4",
        ),
        before(
            "model = nn.Attention(2, causal=causal, window=window)",
            "assert model.window == (3, 3)",
        ),
        start="(Attention): `window=4` counts the last positions",
    ),
    case(
        "LN-VALUE-04",
        "positions of another kind",
        """
        model = nn.Attention(2, position=nn.LearnedPosition(8))
        """,
        instead(
            "assert nn.Attention(2, position=position).position == nn.Rotary()",
        ),
        instead("assert nn.Attention(2, position=position).position is None"),
        start="Attention: `position` is LearnedPosition, which has neither",
    ),
    case(
        "LN-VALUE-04",
        "norm that is none",
        """
        qk_norm = True
        model = nn.Attention(2, qk_norm=qk_norm)
        """,
        swap("qk_norm = True", check="assert model.query_norm is not model.key_norm"),
        start="Attention: `qk_norm` is True,",
    ),
    case(
        "LN-SHAPE-03",
        "heads that do not divide the features",
        """
        num_heads, head_dim = 3, None
        model = nn.Sequential([nn.Attention(num_heads, head_dim=head_dim)])
        model = nn.init(model, key, x)
        """,
        before(
            "model = nn.Sequential([nn.Attention(num_heads, head_dim=head_dim)])",
            "assert model[0].query.kernel.shape == (7, 6)",
        ),
        before(
            "model = nn.Sequential([nn.Attention(num_heads, head_dim=head_dim)])",
            "assert model[0].query.kernel.shape == (7, 7)",
        ),
        start="layers[0] (Attention): the 7 features of `x` cannot be divided among 3",
    ),
]
