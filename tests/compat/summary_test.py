"""Tables of modules, letter by letter as Flax prints them.

Each has one collection: Flax shows several in the order of a set.
"""

import enum

import jax
import jax.numpy as jnp
import pytest

from oracle import OURS, THEIRS, assert_same

KEY = jax.random.key(0)
IMAGE = jnp.ones((2, 8, 8, 3))
X = jnp.ones((1, 3))


class Key(enum.StrEnum):
    """A key that is shown by its value."""

    x = "x"


def models(library):
    nn, struct = library.linen, library.struct

    @struct.dataclass
    class Pair:
        first: object
        second: object = struct.field(pytree_node=False, default=("a", 2))

    class Net(nn.Module):
        def block(self, x):
            return nn.relu(nn.LayerNorm()(nn.Conv(4, (3, 3))(x)))

        @nn.compact
        def __call__(self, x, training=False):
            x = nn.Dropout(0.5, deterministic=not training)(self.block(x))
            x = x.mean((1, 2))
            return nn.Dense(3)(x), {"a": x, "b": [x, 3]}

    class Methods(nn.Module):
        def setup(self):
            self.conv, self.dense = nn.Conv(4, (3, 3)), nn.Dense(2)

        def encode(self, x):
            return self.conv(x)

        def __call__(self, x):
            return self.dense(self.encode(x))

    class Outer(nn.Module):
        def setup(self):
            self.inner = Methods()

        def __call__(self, x):
            return self.inner.encode(x)

    class Reused(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(3)
            return dense(dense(x))

    class Norms(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.GroupNorm(1)(nn.LayerNorm()(x))

    class Steps(nn.Module):
        @nn.compact
        def __call__(self, x):
            step = lambda self, x, _: (nn.Dense(3, name="d")(x), None)  # noqa: E731
            each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            return nn.scan(step, **each, length=3)(self, x, None)[0]

    class Boxed(nn.Module):
        @nn.compact
        def __call__(self, x):
            init = nn.with_partitioning(nn.initializers.ones, ("a", None))
            self.param("pair", lambda key: Pair(jnp.ones(2)))
            self.param("nested", lambda key: {"names": (1, 2)})
            return nn.Dense(4, kernel_init=init)(x)

    class Sum(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return jnp.sum(inputs["x"])

    return locals()


OPERATIONS = {"compute_flops": True, "compute_vjp_flops": True}
TABLES = {
    "a net": ("Net", (IMAGE,), {"training": False}),
    "the first level": ("Net", (IMAGE,), {"depth": 0}),
    "a method": ("Methods", (IMAGE,), {"method": "encode"}),
    "a method inside": ("Outer", (IMAGE,), {}),
    "a layer twice": ("Reused", (X,), {}),
    "each time": ("Reused", (X,), {"show_repeated": True, "compute_flops": True}),
    "operations": ("Reused", (X,), OPERATIONS),
    "operations of norms": ("Norms", (jnp.ones((5, 8)),), OPERATIONS),
    "a scan": ("Steps", (X,), {"compute_flops": True}),
    "boxes": ("Boxed", (X,), {}),
    "a dict": ("Sum", ({Key.x: X},), {}),
    "no arrays": ("Sum", ({"x": X, "n": None, "l": [X, (1.5, "s")]},), {}),
    "empty": ("Sum", ({"x": X, "d": {}, "l": [{}, ()]},), {}),
}


@pytest.mark.parametrize("colours", [False, True], ids=["plain", "coloured"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_reads_as_flaxs(name, colours):
    model, args, options = TABLES[name]
    console = {"force_terminal": colours, "width": 160}

    def table(library):
        module = models(library)[model]()
        return module.tabulate(KEY, *args, console_kwargs=console, **options)

    assert table(OURS) == table(THEIRS)


def test_rows_have_what_those_of_flax_have():
    def program(library):
        table = library.linen.summary._get_module_table
        rows = table(models(library)["Net"](), 1, False, False, False)(KEY, IMAGE)
        return rows.collections, [
            (row.path, row.module_variables, row.size_and_bytes(["params", "other"]))
            for row in rows
        ]

    assert_same(program)


def test_tables_leave_no_traced_values_behind():
    with jax.checking_leaks():
        assert "Total" in models(OURS)["Steps"]().tabulate(KEY, X)
