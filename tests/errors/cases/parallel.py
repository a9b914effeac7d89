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
        "LN-PLAN-01",
        "loss",
        """
        from linnet import parallel
        model = nn.Dense(3)
        loss = lambda model, x: jnp.sum(model(x))
        found = parallel.plan(model, x, {"data": 4}, parallel.Rules(), loss=loss)
        """,
        before(
            'found = parallel.plan(model, x, {"data": 4}, parallel.Rules(), loss=loss)',
            "assert found.parameters > 0",
        ),
        start="plan: the model is described only, and a loss may call it with",
    ),
    case(
        "LN-PIPE-01",
        "no such axis",
        """
        from linnet import parallel
        stack = nn.init(nn.Stack(nn.Dense(7), 4), key, x)
        mesh = parallel.make_mesh(data=4)
        y = parallel.pipeline(stack, x, microbatches=2, mesh=mesh)
        """,
        swap("mesh = parallel.make_mesh(data=4)", check="assert y.shape == (4, 7)"),
        start="pipeline: the mesh has no axis 'stage' for the stages.",
    ),
    case(
        "LN-PIPE-02",
        "no stack",
        """
        from linnet import parallel
        layers = [nn.init(nn.Dense(7), key, x)] * 4
        mesh = parallel.make_mesh(stage=4)
        stack = nn.Sequential(layers)
        y = parallel.pipeline(stack, x, microbatches=2, mesh=mesh)
        """,
        swap("stack = nn.Sequential(layers)", check="assert y.shape == (4, 7)"),
        start="pipeline: a pipeline divides an `nn.Stack`, not Sequential.",
    ),
    case(
        "LN-PIPE-03",
        "layers",
        """
        from linnet import parallel
        depth = 6
        stack = nn.init(nn.Stack(nn.Dense(7), depth), key, x)
        mesh = parallel.make_mesh(stage=4)
        y = parallel.pipeline(stack, x, microbatches=2, mesh=mesh)
        """,
        swap("depth = 6", check="assert y.shape == (4, 7)"),
        start="pipeline: 6 layers cannot be divided over stage=4 with 1 groups each.",
    ),
    case(
        "LN-PIPE-03",
        "batch",
        """
        from linnet import parallel
        stack = nn.init(nn.Stack(nn.Dense(7), 4), key, x)
        mesh = parallel.make_mesh(stage=4)
        microbatches = 3
        y = parallel.pipeline(stack, x, microbatches=microbatches, mesh=mesh)
        """,
        swap("microbatches = 3", check="assert y.shape == (4, 7)"),
        start="pipeline: a batch of 4 cannot be cut into 3 microbatches.",
    ),
    case(
        "LN-PIPE-03",
        "repeats",
        """
        from linnet import parallel
        stack = nn.init(nn.Stack(nn.Dense(7), 8), key, x)
        mesh = parallel.make_mesh(stage=4)
        microbatches = 2
        y = parallel.pipeline(
            stack, x, microbatches=microbatches, repeats=2, mesh=mesh)
        """,
        swap("microbatches = 2", check="assert y.shape == (4, 7)"),
        start="pipeline: 2 microbatches are too few for 4 stages that are gone through",
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
        "LN-SHARD-04",
        "too few names",
        """
        class Model(nn.Module):
            def __init__(self):
                self.dense = nn.Dense(3)
            def __call__(self, x):
                x = nn.shard(x, "batch")
                return self.dense(x)
        y = nn.init(Model(), key, x)
        """,
        swap('x = nn.shard(x, "batch")', check="assert y"),
        swap('x = nn.shard(x, "batch")', check="assert y"),
        start="(Model): 1 axis was named of an array that has 2.",
    ),
    case(
        "LN-SHARD-03",
        "twice in an activation",
        """
        from linnet import parallel
        class Model(nn.Module):
            def __call__(self, x):
                return nn.shard(x, "batch", "length")
        mesh = parallel.make_mesh(data=4)
        rules = parallel.Rules({"batch": "data", "length": "data"})
        with parallel.use(mesh, rules):
            y = Model()(jnp.ones((4, 8)))
        """,
        before(
            "with parallel.use(mesh, rules):", "assert y.sharding.spec[0] == 'data'"
        ),
        before(
            "with parallel.use(mesh, rules):", "assert y.sharding.spec[1] == 'data'"
        ),
        start="(Model): `x` would be divided over 'data' twice, along 'batch' and",
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
