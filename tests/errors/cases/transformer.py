"""Errors of perceptrons, experts and transformer blocks."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-VALUE-04",
        "name of an activation",
        """
        activation = "silu"
        model = nn.MLP(8, activation=activation)
        """,
        swap('activation = "silu"', check="assert model.activation is jax.nn.silu"),
        start="MLP: `activation` is 'silu',",
    ),
    case(
        "LN-VALUE-02",
        "dropout inside of a layer",
        """
        dropout_rate = 10
        model = nn.MLP(8, dropout_rate=dropout_rate)
        """,
        swap("dropout_rate = 10", check="assert model.dropout.rate == 0.1"),
        swap("dropout_rate = 10", check="assert model.dropout.rate == 0.0"),
        start="MLP: `dropout_rate` is 10,",
    ),
    case(
        "LN-DTYPE-01",
        "of the layers of a layer",
        """
        dtype = jnp.int8
        model = nn.MLP(8, dtype=dtype)
        """,
        swap("dtype = jnp.int8", check="assert model.hidden[0].dtype == jnp.float32"),
        start="(Dense): `dtype` is int8,",
    ),
    case(
        "LN-VALUE-06",
        "more choices than experts",
        """
        top_k = 5
        model = nn.MoE(4, 8, top_k=top_k)
        """,
        swap("top_k = 5", check="assert model.top_k == 4"),
        start="MoE: `top_k` is 5,",
    ),
    case(
        "LN-VALUE-04",
        "shared experts",
        """
        shared = 2
        model = nn.MoE(4, 8, shared=shared)
        """,
        swap("shared = 2", check="assert isinstance(model.shared, nn.MLP)"),
        start="MoE: `shared` is 2,",
    ),
    case(
        "LN-DTYPE-01",
        "mask of tokens",
        """
        mask = jnp.ones(4, jnp.int32)
        model = nn.init(nn.MoE(3, 8), key, x)
        y = model(x, mask)
        """,
        before("y = model(x, mask)", check="assert y.shape == x.shape"),
        start="(MoE): `mask` has dtype int32,",
    ),
    case(
        "LN-SHAPE-01",
        "mask of other tokens",
        """
        mask = jnp.ones(7, bool)
        model = nn.init(nn.MoE(3, 8), key, x)
        y = model(x, mask)
        """,
        before("y = model(x, mask)", check="assert y.shape == x.shape"),
        start="(MoE): `mask` has shape [7],",
    ),
    case(
        "LN-SHAPE-02",
        "experts without choices",
        """
        experts = jnp.array([0, 1, 0])
        where = F.expert_slots(experts, 2)
        """,
        before(
            "where = F.expert_slots(experts, 2)",
            check="assert where.slots.shape == (3, 1)",
        ),
        start="`experts` has 1 axes,",
    ),
    case(
        "LN-SHAPE-01",
        "slots of other tokens",
        """
        experts, num_experts = jnp.array([[0], [1], [0]]), 2
        where = F.expert_slots(experts[:2], num_experts)
        y = F.expert_dispatch(jnp.ones((3, 4)), where)
        """,
        swap(
            "where = F.expert_slots(experts[:2], num_experts)",
            check="assert y.shape == (2, 8, 4)",
        ),
        start="`x` has shape [3, 4], but slots were given to tokens of shape [2].",
    ),
    case(
        "LN-SHAPE-01",
        "blocks of other experts",
        """
        x, kernel = jnp.ones((3, 8, 4)), jnp.ones((2, 4, 5))
        experts = jnp.array([0, 0, 1])
        y = F.expert_dense(x, kernel)
        """,
        instead("assert y.shape == (3, 8, 5)"),
        start="`x` of shape [3, 8, 4] cannot be multiplied by `kernel`",
    ),
    case(
        "LN-SHAPE-01",
        "rows of one expert",
        """
        x, kernel = jnp.ones((8, 4)), jnp.ones((1, 4, 5))
        y = F.expert_dense(x, kernel)
        """,
        before("y = F.expert_dense(x, kernel)", "assert y.shape == (1, 8, 5)"),
        start="`x` of shape [8, 4] cannot be multiplied by `kernel`",
    ),
    case(
        "LN-SHAPE-01",
        "experts of another width",
        """
        x, kernel = jnp.ones((2, 8, 3)), jnp.ones((2, 4, 5))
        y = F.expert_dense(x, kernel)
        """,
        before("y = F.expert_dense(x, kernel)", "assert y.shape == (2, 8, 5)"),
        start="`x` of shape [2, 8, 3] cannot be multiplied by `kernel`",
    ),
    case(
        "LN-VALUE-06",
        "context without cross-attention",
        """
        cross_attention = None
        context = jnp.ones((3, 7))
        block = nn.TransformerBlock(
            nn.Attention(1), nn.MLP(8), cross_attention=cross_attention
        )
        model = nn.init(block, key, x, context)
        """,
        swap(
            "cross_attention = None",
            check="assert model(x, context).shape == x.shape",
        ),
        swap("context = jnp.ones((3, 7))", check="assert model(x).shape == x.shape"),
        start="(TransformerBlock): `context` was given,",
    ),
    case(
        "LN-VALUE-06",
        "cross-attention without context",
        """
        cross_attention = nn.Attention(1)
        context = jnp.ones((3, 7))
        block = nn.TransformerBlock(
            nn.Attention(1), nn.MLP(8), cross_attention=cross_attention
        )
        model = nn.init(block, key, *([x, context] if cross_attention else [x]))
        y = model(x)
        """,
        instead("assert y.shape == x.shape"),
        swap("cross_attention = nn.Attention(1)", check="assert y.shape == x.shape"),
        start="(TransformerBlock): there is no `context`,",
    ),
    case(
        "LN-VALUE-06",
        "cross-attention in parallel",
        """
        attention = nn.Attention(1)
        cross_attention = nn.Attention(1)
        parallel = True
        options = {"parallel": parallel, "cross_attention": cross_attention}
        model = nn.TransformerBlock(attention, nn.MLP(8), **options)
        """,
        swap("parallel = True", check="assert not model.parallel"),
        swap("cross_attention = nn.Attention(1)", check="assert model.parallel"),
        start="TransformerBlock: `parallel` is True,",
    ),
    case(
        "LN-VALUE-04",
        "class of a part",
        """
        mlp = nn.MLP
        model = nn.TransformerBlock(nn.Attention(1), mlp)
        """,
        swap("mlp = nn.MLP", check="assert isinstance(model.mlp, nn.MLP)"),
        start="TransformerBlock: `mlp` is the class MLP,",
    ),
    case(
        "LN-VALUE-04",
        "norm that is made already",
        """
        norm = nn.RMSNorm()
        model = nn.TransformerBlock(nn.Attention(1), nn.MLP(8), norm=norm)
        """,
        swap(
            "norm = nn.RMSNorm()",
            check="assert isinstance(model.mlp_norm, nn.LayerNorm)",
        ),
        start="TransformerBlock: `norm` is RMSNorm(",
    ),
    case(
        "LN-SHAPE-01",
        "part that changes the width",
        """
        mlp = nn.MLP(8, out_features=3)
        model = nn.init(nn.TransformerBlock(nn.Attention(1), mlp), key, x)
        """,
        before(
            "model = nn.init(nn.TransformerBlock(nn.Attention(1), mlp), key, x)",
            check="assert model(x).shape == x.shape",
        ),
        start="(TransformerBlock): `mlp` returns float32[4, 3],",
    ),
    case(
        "LN-VALUE-02",
        "noise of a router",
        """
        router_jitter = 1.5
        model = nn.MoE(4, 8, router_jitter=router_jitter)
        """,
        swap("router_jitter = 1.5", check="assert model.router_jitter == 0.01"),
        start="MoE: `router_jitter` is 1.5,",
    ),
    case(
        "LN-SHAPE-01",
        "width of shared experts",
        """
        shared = nn.MLP(8, out_features=3)
        model = nn.init(nn.MoE(4, 8, shared=shared), key, x)
        """,
        swap(
            "shared = nn.MLP(8, out_features=3)",
            check="assert model(x).shape == x.shape",
        ),
        start="(MoE): `shared` returns float32[4, 3],",
    ),
]
