"""What surrounds Linen: cursors, training helpers, traversals, files."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linnet.compat.flax.metrics import tensorboard
from oracle import OURS, THEIRS, assert_same

# The genuine Flax warns that some of this is to go.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

X = jnp.ones((1, 3))
TREE = {"a": 1, "b": (2, [3, 4]), "c": {"d": 5}}


def edited(library):
    cursor = library.cursor.cursor(TREE)
    cursor["b"][1][0] = 10
    cursor["c"]["d"] = cursor["c"]["d"] * 2
    return cursor.build(), TREE


PROGRAMS = {
    "a cursor": edited,
    "a cursor's update": lambda lib: (
        lib.cursor.cursor(TREE)
        .apply_update(lambda path, x: x + 1 if isinstance(x, int) else x)
        .build()
    ),
    "flat": lambda lib: lib.traverse_util.flatten_dict(TREE, sep="/"),
    "flat and back": lambda lib: lib.traverse_util.unflatten_dict(
        lib.traverse_util.flatten_dict({"a": {"b": {}}, "c": 1}, keep_empty_nodes=True)
    ),
    "by path": lambda lib: lib.traverse_util.path_aware_map(
        lambda path, x: ("/".join(path), x), {"a": {"b": 1}, "c": 2}
    ),
    "parameters": lambda lib: lib.traverse_util.ModelParamTraversal(
        lambda path, x: "b" in path
    ).update(lambda x: x + 10, {"a": {"b": 1}, "c": 2}),
    "parameters with a slash": lambda lib: lib.traverse_util.ModelParamTraversal(
        lambda path, x: "b" in path
    ).update(lambda x: x + 10, {"a/b": {"c": 1}, "d": 2}),
    "items": lambda lib: list(lib.traverse_util.t_identity["b"].tree().iterate(TREE)),
    "stopping": lambda lib: __import__("functools").reduce(
        lambda state, metric: state.update(metric),
        [3.0, 2.0, 2.5, 2.5],
        lib.training.early_stopping.EarlyStopping(patience=1),
    ),
    "natural order": lambda lib: lib.training.checkpoints.natural_sort(
        ["a10", "a9", "a-1", "b2"]
    ),
    "one-hot": lambda lib: lib.training.common_utils.onehot(jnp.array([0, 2]), 3),
    "rates": lambda lib: [
        float(
            lib.training.lr_schedule.create_cosine_learning_rate_schedule(1, 2, 4, 1)(i)
        )
        for i in (0, 1, 5, 8)
    ],
    "rates in steps": lambda lib: [
        float(
            lib.training.lr_schedule.create_stepped_learning_rate_schedule(
                0.1, 2, [[1, 0.1], [3, 0.01]], warmup
            )(i)
        )
        for i in (0, 1, 2, 3, 6, 7)
        for warmup in (0.0, 2.0)
    ],
    "stacked": lambda lib: lib.training.common_utils.stack_forest(
        [{"a": 1, "b": np.ones(2)}, {"a": 2, "b": np.zeros(2)}]
    ),
    "one copy": lambda lib: lib.jax_utils.unreplicate(
        lib.jax_utils.replicate({"a": jnp.ones(2)})
    ),
    "one copy while tracing": lambda lib: jax.jit(lib.jax_utils.unreplicate)(
        {"a": jnp.ones((2, 3))}
    ),
    "older names": lambda lib: lib.training.checkpoints.convert_pre_linen(
        lib.core.freeze({"Dense_3": {"Conv_1": {"k": 1}}, "Dense_10": {"k": 2}})
    ),
    "scan": lambda lib: lib.jax_utils.scan_in_dim(
        lambda c, x: (c + x.sum(), x), 0.0, jnp.ones((2, 3, 4)), (0, 2)
    )[0],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_does_what_it_does_in_flax(name):
    for module in ("early_stopping", "checkpoints", "common_utils", "lr_schedule"):
        for library in (OURS, THEIRS):
            __import__(f"{library._root}.training.{module}")
    assert_same(PROGRAMS[name])


def state_of(library):
    __import__(f"{library._root}.training.train_state")
    model = library.linen.Sequential([library.linen.Dense(3), library.linen.Dense(2)])
    params = model.init(jax.random.key(0), X)["params"]
    create = library.training.train_state.TrainState.create
    return create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))


@pytest.mark.parametrize("orbax", [False, True], ids=["msgpack", "orbax"])
def test_checkpoints_go_both_ways(tmp_path, orbax):
    for library in (OURS, THEIRS):
        library.configurations.config.update("flax_use_orbax_checkpointing", orbax)
        __import__(f"{library._root}.training.checkpoints")
    for first, second in ((OURS, THEIRS), (THEIRS, OURS)):
        folder = tmp_path / first._root
        state = state_of(first)
        state = state.apply_gradients(grads=jax.tree.map(jnp.ones_like, state.params))
        first.training.checkpoints.save_checkpoint(folder, state, 3)
        found = second.training.checkpoints.restore_checkpoint(folder, state_of(second))
        for mine, other in zip(
            jax.tree.leaves(found), jax.tree.leaves(state), strict=True
        ):
            np.testing.assert_array_equal(mine, other)
    # Orbax, unlike the files of msgpack, lets an older step be written.
    error = ValueError if orbax else OURS.errors.InvalidCheckpointError
    with pytest.raises(error):
        OURS.training.checkpoints.save_checkpoint(tmp_path / OURS._root, state, 3)


def saved(library, folder):
    """The names of checkpoints after some were written, and the latest of them."""
    library.configurations.config.update("flax_use_orbax_checkpointing", True)
    checkpoints = importlib.import_module(f"{library._root}.training.checkpoints")
    manager = checkpoints.AsyncManager()
    for step in range(8):
        tree = {"b": jnp.full(2, step), "a": {"d": jnp.ones(1), "c": jnp.zeros(1)}}
        checkpoints.save_checkpoint(
            folder, tree, step, keep=2, keep_every_n_steps=3, async_manager=manager
        )
    return (
        sorted(path.name for path in folder.iterdir()),
        checkpoints.available_steps(folder),
        checkpoints.restore_checkpoint(folder, tree),
        checkpoints.restore_checkpoint(folder, None, step=6),
    )


def test_the_same_checkpoints_are_kept(tmp_path):
    assert_same(lambda library: saved(library, tmp_path / library._root))


def test_a_scaled_loss_has_the_gradients_of_the_loss():
    def program(library):
        __import__(f"{library._root}.training.dynamic_scale")
        scale = library.training.dynamic_scale.DynamicScale()
        found = scale.value_and_grad(lambda x: (x**2).sum())(jnp.array([1.0, 2.0]))
        return found.finite, found.aux, found.grad, found.dynamic_scale.fin_steps

    assert_same(program)


def test_values_are_written_for_tensorboard(tmp_path):
    writer = tensorboard.SummaryWriter(tmp_path)
    writer.scalar("loss", jnp.float32(1.5), 1)
    writer.text("note", "words", 1)
    writer.histogram("weights", jnp.arange(4.0), 1)
    writer.image("picture", np.zeros((4, 4, 3), np.uint8), 1)
    writer.close()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size > 200
