"""Who has which variables: shared scopes, names that are kept, keyword-only fields."""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest

from oracle import assert_same

KEY = jax.random.key(0)
X = jnp.ones((1, 3))


def shapes(module):
    return jax.tree.map(jnp.shape, module.init(KEY, X))


# ---- scopes that are shared


def sharing(nn):
    class Child(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x)

    class Deep(nn.Module):
        child: nn.Module

        def setup(self):
            self.inside = self.child

        def __call__(self, x):
            return self.inside(x)

    class Wrapper(nn.Module):
        inner: nn.Module

        def setup(self):
            nn.share_scope(self, self.inner)

        @nn.compact
        def __call__(self, x):
            return self.inner(x) + nn.Dense(2, name="own")(x)

    class Outside(nn.Module):
        def setup(self):
            self.made = Child()
            self.wrapper = Wrapper(self.made)

        def __call__(self, x):
            return self.wrapper(x) + self.made(x)

    class Below(nn.Module):
        def setup(self):
            self.deep = Deep(Child())
            self.wrapper = Wrapper(self.deep.inside)

        def __call__(self, x):
            return self.wrapper(x)

    class Twice(nn.Module):
        inner: nn.Module

        def setup(self):
            self.wrapper = Wrapper(self.inner)
            nn.share_scope(self, self.wrapper)

        def __call__(self, x):
            return self.wrapper(x)

    class Late(nn.Module):
        inner: nn.Module

        @nn.compact
        def __call__(self, x):
            nn.share_scope(self, self.inner)
            return self.inner(x)

    return {
        "a child": lambda: Wrapper(Child()),
        "a layer": lambda: Wrapper(nn.Dense(2)),
        "with children": lambda: Wrapper(Deep(Child())),
        "from outside": Outside,
        "from below": Below,
        "twice": lambda: Twice(Child()),
        "twice with children": lambda: Twice(Deep(Child())),
        "in a call": lambda: Late(Deep(Child())),
    }


@pytest.mark.parametrize("name", list(sharing(__import__("flax").linen)))
def test_a_shared_scope_is_where_flax_has_it(name):
    assert_same(lambda library: shapes(sharing(library.linen)[name]()))


# ---- names that modules from outside keep


@pytest.mark.parametrize("keeps", [None, False, True])
@pytest.mark.parametrize("flag", [False, True])
def test_names_are_kept_as_in_flax(keeps, flag):
    def program(library):
        nn = library.linen
        members = {} if keeps is None else {"preserve_adopted_names": keeps}

        class Base(nn.Module):
            foo: nn.Module

            @nn.compact
            def __call__(self, x):
                return self.foo(x)

        Net = type("Net", (Base,), members)

        class Outer(nn.Module):
            def setup(self):
                self.net = Net(nn.Dense(2, name="x"))

            def __call__(self, x):
                return self.net(x)

        with library.configurations.config.temp_flip_flag(
            "preserve_adopted_names", flag
        ):
            return [
                shapes(Net(nn.Dense(2, name="x"))),
                shapes(Net(nn.Dense(2))),
                shapes(Net(Net(nn.Dense(2, name="x"), name="y"))),
                shapes(Outer()),
            ]

    assert_same(program)


# ---- names in transforms


def lifted(nn):
    each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}

    same = {
        "variable_broadcast": "params",
        "split_rngs": {"params": False},
        "length": 2,
    }

    def layer(self, x, _=None):
        return nn.Dense(3)(x)

    def step(self, x, _):
        return nn.Dense(3)(x), None

    def named(self, x):
        return nn.Dense(3, name="d")(x)

    def given(self, dense, x):
        return dense(nn.Dense(3, name="d")(x))

    return {
        "a scan between": lambda self, x: nn.Dense(3)(
            nn.scan(step, **same)(self, nn.Dense(3)(x), None)[0]
        ),
        "a scan twice": lambda self, x: [
            nn.scan(step, **same)(self, x, None),
            nn.scan(step, **same)(self, x, None),
            nn.Dense(3)(x),
        ],
        "a scan of its own": lambda self, x: nn.scan(step, **each, length=2)(
            self, x, None
        ),
        "rematerialised": lambda self, x: [nn.remat(layer)(self, x) for _ in range(2)],
        "jitted": lambda self, x: [nn.jit(layer)(self, x), nn.Dense(3)(x)],
        "a name again": lambda self, x: (nn.jit(named)(self, x), named(self, x)),
        "a name before": lambda self, x: (named(self, x), nn.jit(named)(self, x)),
        "one is given": lambda self, x: nn.jit(given)(self, nn.Dense(3, name="d"), x),
        "a partial class": lambda self, x: nn.vmap(
            functools.partial(nn.Dense, use_bias=False), **each
        )(features=4)(x),
        "an axis of metadata": lambda self, x: nn.add_metadata_axis(
            nn.Dense, variable_axes={"params": 0}
        )(2)(x),
    }


@pytest.mark.parametrize("name", list(lifted(__import__("flax").linen)))
def test_a_transform_names_as_in_flax(name):
    def program(library):
        nn = library.linen

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return lifted(nn)[name](self, x)

        return shapes(Net())

    assert_same(program)


def test_parts_of_a_module_go_through_beside_it():
    def program(library):
        nn = library.linen

        class Net(nn.Module):
            def setup(self):
                self.d = nn.Dense(3)
                self.more = [nn.Dense(3)]

            def call(self, x):
                return self.d(x)

            def __call__(self, x):
                both = lambda self, d, more, x: more[0](d(x)) + self.call(x)  # noqa: E731
                return nn.remat(both)(self, self.d, self.more, x)

        return shapes(Net())

    assert_same(program)


@pytest.mark.parametrize("name", ["cond", "switch", "vjp", "while_loop"])
def test_bound_methods_are_taken_as_in_flax(name):
    def program(library):
        nn = library.linen

        class Net(nn.Module):
            def setup(self):
                self.a, self.b = nn.Dense(3), nn.Dense(3)

            def first(self, x):
                return self.a(x)

            def second(self, x):
                return self.b(x)

            def few(self, n):
                return n < 3

            def more(self, n):
                return n + 1

            def __call__(self, x):
                if self.is_initializing():
                    return self.first(x) + self.second(x)
                if name == "cond":
                    return nn.cond(True, self.first, self.second, self, x)
                if name == "switch":
                    return nn.switch(1, [self.first, self.second], self, x)
                if name == "vjp":
                    return nn.vjp(self.first, self, x)[0]
                return nn.while_loop(self.few, self.more, self, 0)

        return Net().apply(Net().init(KEY, X), X)

    assert_same(program)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
@pytest.mark.parametrize("name", ["vmap", "scan"])
def test_boxes_see_the_whole_array_lose_and_gain_its_axis(name, axis):
    def program(library):
        nn, log = library.linen, []

        class Box(library.struct.PyTreeNode, library.core.meta.AxisMetadata):
            value: object

            def unbox(self):
                return self.value

            def replace_boxed(self, value):
                return self.replace(value=value)

            def add_axis(self, index, params):
                log.append(("add", index, dict(params), jnp.shape(self.value)))
                return self

            def remove_axis(self, index, params):
                log.append(("remove", index, dict(params), jnp.shape(self.value)))
                return self

        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x, _=None):
                weight = self.param("w", lambda key: Box(jnp.ones((3, 2))))
                return x * weight[:, 0], None

        lift = functools.partial(getattr(nn, name), Layer, metadata_params={"z": 1})
        options = {"variable_axes": {"params": axis}}
        options["split_rngs"] = {"params": axis is not None}
        if name == "scan":
            options["length"] = 4
            if axis is None:
                options["variable_broadcast"] = (
                    options.pop("variable_axes") and "params"
                )

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                if name == "scan":
                    return lift(**options)()(x[0], None)[0]
                return lift(**options)()(x)[0]

        x = jnp.ones((4, 3))
        variables = Net().init(KEY, x)
        Net().apply(variables, x)
        return jax.tree.map(jnp.shape, variables), log

    assert_same(program)


# ---- fields


def signature(cls):
    found = inspect.signature(cls).parameters.values()
    own = [p for p in found if p.name not in ("parent", "name")]
    return [(p.name, p.kind, p.default) for p in own]


FIELDS = {
    "all": "class A(nn.Module, kw_only=True):\n a: int\n b: int = 2",
    "of the base": "class B(nn.Module, kw_only=True):\n b: int = 1\n"
    "class A(B):\n a: int",
    "of the derived": "class B(nn.Module):\n b: int = 1\n"
    "class A(B, kw_only=True):\n a: int = 2",
    "one": "class A(nn.Module):\n a: int = 0\n"
    " b: int = dataclasses.field(default=1, kw_only=True)",
    "a default first": "class A(nn.Module):\n a: int = 1\n b: int",
    "overridden": "class B(nn.Module):\n a: int = 1\n b: int = 2\n"
    "class A(B):\n a: int = 3\n c: int = 4",
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_make_the_constructor_that_they_make_in_flax(name):
    def program(library):
        import dataclasses

        names = {"nn": library.linen, "dataclasses": dataclasses, "__name__": "program"}
        exec(FIELDS[name], names)
        return signature(names["A"]), names["A"](a=5)

    assert_same(program)


DATACLASSES = {
    "overridden": "@k.dataclass\nclass C(P):\n size: int\n"
    " x: int = k.field(default=5, kw_only=True)",
    "a plain default": "@k.dataclass\nclass C(P):\n x: int = 5\n size: int",
    "without one": "@k.dataclass\nclass C(P):\n y: int\n size: int",
    "a new one": "@k.dataclass\nclass C(P):\n"
    " w: int = k.field(default=5, kw_only=True)",
    "none at all": "@k.dataclass\nclass C(P):\n w: int = k.field(kw_only=True)",
}


@pytest.mark.parametrize("name", DATACLASSES)
def test_keyword_only_fields_stand_last_as_in_flax(name):
    def program(library):
        k = library.linen.kw_only_dataclasses

        @k.dataclass
        class P:
            x: int = k.field(default=1, kw_only=True)
            y: int = k.field(default=2, kw_only=True)

        names = {"k": k, "P": P}
        exec(DATACLASSES[name], names)
        plain = inspect.signature(names["C"]).parameters.values()
        return [(p.name, p.kind, p.default) for p in plain]

    for library in ("flax", "linnet.compat.flax"):
        __import__(f"{library}.linen.kw_only_dataclasses")
    assert_same(program)


# ---- filters


@pytest.mark.parametrize("name", ["union", "subtract", "intersect"])
def test_filters_are_worked_out_as_in_flax(name):
    def program(library):
        scope = library.core.scope
        deny, found = scope.DenyList, []
        filters = [True, False, "a", ["a", "b"], [], deny("a"), deny(["b", "c"])]
        for a in filters:
            for b in filters:
                both = getattr(scope, f"{name}_filters")(a, b)
                names = [n for n in "abcd" if scope.in_filter(both, n)]
                found.append((type(both).__name__, names))
        return found

    assert_same(program)
