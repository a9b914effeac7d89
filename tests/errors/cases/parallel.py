"""Meshes, and rules that do not fit them or an array."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-MESH-01",
        "sizes",
        """
        from linnet import parallel
        mesh = parallel.make_mesh(data=3, model=1)
        """,
        instead("assert mesh.shape['data'] == jax.device_count()"),
        start="the mesh (data=3, model=1) does not fit 4 devices.",
    ),
    case(
        "LN-SHARD-01",
        "unknown axis",
        """
        from linnet import parallel
        mesh = parallel.make_mesh(data=4)
        rules = parallel.fsdp() | parallel.tensor_parallel()
        model = nn.abstract(nn.MLP(8), x)
        shardings = parallel.shardings(model, mesh, rules)
        """,
        swap("mesh = parallel.make_mesh(data=4)", check="assert shardings"),
        before("model = nn.abstract(nn.MLP(8), x)", "assert shardings"),
        start="the rules divide 'heads' over 'model', which is no axis of the mesh.",
    ),
    case(
        "LN-SHARD-02",
        "indivisible",
        """
        from linnet import parallel
        mesh = parallel.make_mesh(data=1, model=4)
        rules = parallel.tensor_parallel()
        size = 10
        model = nn.abstract(nn.MLP(size), x)
        shardings = parallel.shardings(model, mesh, rules)
        """,
        before("size = 10", "assert shardings"),
        swap("size = 10", check="assert 'model' in shardings.out.kernel.spec"),
        start="`hidden/0/kernel` has 10 along 'mlp', which cannot be divided by",
    ),
    case(
        "LN-SHARD-03",
        "twice",
        """
        from linnet import parallel
        mesh = parallel.make_mesh(data=1, model=4)
        rules = parallel.Rules({"in": "model", "out": "model"})
        model = nn.abstract(nn.Dense(8), jnp.ones((1, 4)))
        shardings = parallel.shardings(model, mesh, rules)
        """,
        before(
            "model = nn.abstract(nn.Dense(8), jnp.ones((1, 4)))",
            "assert shardings.kernel.spec[0] == 'model'",
        ),
        before(
            "model = nn.abstract(nn.Dense(8), jnp.ones((1, 4)))",
            "assert shardings.kernel.spec[1] == 'model'",
        ),
        start="`kernel` would be divided over 'model' twice, along 'in' and 'out'.",
    ),
    case(
        "LN-SHARD-04",
        "too many names",
        """
        x = x[0]
        x = nn.shard(x, "batch", "features")
        """,
        instead("assert x.shape == (7,)"),
        start="2 axes were named of an array that has 1.",
    ),
    case(
        "LN-SHARD-05",
        "no mesh",
        """
        from linnet import parallel
        mesh, rules = parallel.make_mesh(data=4), parallel.fsdp()
        tree = nn.abstract(nn.Dense(8), x)
        shardings = parallel.shardings(tree)
        """,
        instead("assert shardings"),
        instead("assert shardings"),
        start="there is no mesh to place arrays by.",
    ),
]
