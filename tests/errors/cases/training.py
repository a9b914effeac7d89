"""Errors of training: states, accumulation, the loop and its hooks."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-TRAIN-01",
        "no optimiser",
        """
        from linnet import training
        model = nn.init(nn.Dense(3), key, x)
        tx = optax.adam
        state = training.TrainState.create(model, tx, key)
        """,
        swap("tx = optax.adam", check="assert state.step == 0"),
        start="TrainState: `tx` is 'adam', which has no `init` and `update`.",
    ),
    case(
        "LN-RNG-03",
        "key of a state",
        """
        from linnet import training
        model = nn.init(nn.Dense(3), key, x)
        tx = optax.adam(1e-3)
        key = 0
        state = training.TrainState.create(model, tx, key)
        """,
        swap("key = 0", check="assert state.step == 0"),
        start="TrainState: the key is 0, not one JAX key.",
    ),
    case(
        "LN-TRAIN-02",
        "other gradients",
        """
        from linnet import training
        model = nn.init(nn.Dense(3), key, x)
        tx = optax.adam(1e-3)
        loss_fn = lambda model: model(x).sum()
        state = training.TrainState.create(model, tx, key, wrt="kernel")
        grads = nn.grad(loss_fn)(state.model)
        state = state.apply_gradients(grads)
        """,
        swap("grads = nn.grad(loss_fn)(state.model)", check="assert state.step == 1"),
        start="TrainState: the gradients are not by the trained arrays: they differ at",
    ),
    case(
        "LN-TRAIN-03",
        "uneven parts",
        """
        from linnet import training
        model = nn.init(nn.Dense(3), key, x)
        loss_fn = lambda model, x: (model(x).sum(), len(x), model)
        parts = 3
        batch = {"x": x}
        f = lambda model, batch: loss_fn(model, batch["x"])
        (loss, model), grads = training.accumulate(f, model, batch, parts=parts)
        """,
        swap("parts = 3", check="assert grads.kernel.shape == (7, 3)"),
        before(
            'f = lambda model, batch: loss_fn(model, batch["x"])',
            "assert grads.kernel.shape == (7, 3)",
        ),
        start="accumulate: a batch of 4 cannot be cut into 3 equal parts.",
    ),
    case(
        "LN-DATA-01",
        "lengths",
        """
        from linnet import training
        source = {"x": x, "y": x[:3]}
        batches = training.loader(source, 2)
        """,
        before("batches = training.loader(source, 2)", "assert batches"),
        start="loader: the arrays have not one number of examples.",
    ),
    case(
        "LN-DATA-02",
        "processes",
        """
        from linnet import training
        batch_size = 3
        batches = training.loader([x], batch_size, process=(0, 2))
        """,
        swap("batch_size = 3", check="assert batches"),
        start="loader: a batch of 3 cannot be divided by 2 processes.",
    ),
    case(
        "LN-DATA-03",
        "no iterator",
        """
        from linnet import training
        checkpoints = training.Checkpoints(folder, is_async=False)
        batches = training.loader({"x": x}, 2)
        save = training.Save(checkpoints, 100, data=batches)
        """,
        before(
            "save = training.Save(checkpoints, 100, data=batches)",
            "assert save.data.get_state()",
        ),
        instead("assert save.data is None"),
        start="Save: `data` is a BatchIterDataset, which has no state to be saved.",
    ),
    case(
        "LN-DATA-03",
        "no state",
        """
        from linnet import training
        checkpoints = training.Checkpoints(folder, is_async=False)
        source = {"x": x}
        batches = training.Prefetch([x, x])
        save = training.Save(checkpoints, 100, data=batches)
        """,
        before(
            "save = training.Save(checkpoints, 100, data=batches)",
            "assert save.data.get_state()",
        ),
        instead("assert save.data is None"),
        start="Save: `data` is a Prefetch, which has no state to be saved.",
    ),
    case(
        "LN-EXPORT-01",
        "no sample",
        """
        from linnet import training
        path = folder + "/model"
        model = nn.init(nn.Dense(3), key, x)
        training.export(path, model)
        """,
        instead("import os; assert os.path.exists(path)"),
        start="export: no arguments of the call were given.",
    ),
    case(
        "LN-FIT-01",
        "no hook",
        """
        from linnet import training
        step = lambda state, batch: (state + batch, {})
        hooks = [print]
        training.fit(x, step, [x], steps=1, hooks=hooks)
        """,
        swap("hooks = [print]", check="assert hooks"),
        start="fit: builtin_function_or_method is no hook: it has none of on_start,",
    ),
    case(
        "LN-FIT-02",
        "too few batches",
        """
        import itertools
        from linnet import training
        step = lambda state, batch: (state + batch, {})
        batches = [x, x]
        steps = 3
        state = training.fit(x, step, batches, steps=steps)
        """,
        before("steps = 3", "assert state.shape == (4, 7)"),
        swap("steps = 3", check="assert state.shape == (4, 7)"),
        start="fit: the batches ended after step 2 of 3.",
    ),
    case(
        "LN-FIT-03",
        "not finite",
        """
        from linnet import training
        learning_rate = 1.0
        tx = optax.sgd(learning_rate)
        def step(state, x):
            loss_fn = lambda model: 1e10 * (model(x) ** 2).mean()
            loss, grads = nn.value_and_grad(loss_fn)(state.model)
            return state.apply_gradients(grads), {"loss": loss}
        model = nn.init(nn.MLP(8), key, x)
        state = training.TrainState.create(model, tx, key)
        hooks = [training.StopOnNonFinite(inputs=lambda x: (x,))]
        state = training.fit(state, step, [x] * 2, steps=2, hooks=hooks)
        """,
        before("def step(state, x):", "assert state.step == 2"),
        before("tx = optax.sgd(learning_rate)", "assert state.step == 2"),
        start="fit: step ",
    ),
]
