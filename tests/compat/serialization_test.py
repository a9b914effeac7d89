"""State dicts and MessagePack: Flax's values, Flax's bytes."""

import collections

import jax
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from linnet.compat.flax import serialization
from oracle import OURS, THEIRS, assert_same

Pair = collections.namedtuple("Pair", "left right")
PARAMS = {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}


class Opaque:
    """Of no registered type."""

    def __repr__(self):
        return "Opaque()"


def both(function):
    """What either library makes of the same arguments."""
    return function(THEIRS.serialization), function(OURS.serialization)


TREES = [
    {"b": [1, (2, 3)], "a": {}},
    Pair(1, {"x": Pair([2], None)}),
    {1: 2, 2.5: 3, None: 4},
    {"1": 2, 1: 3},
    3,
    None,
    [None],
    np.float32(3),
    collections.OrderedDict(a=1),
    collections.deque([1]),
    "x",
    (),
    jax.tree_util.Partial(min, 1, key={"a": 2}),
    optax.adamw(1e-3).init(PARAMS),
    optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)).init(PARAMS),
    optax.multi_transform(
        {"a": optax.sgd(0.1, momentum=0.9), "b": optax.set_to_zero()},
        {"w": "a", "b": "b"},
    ).init(PARAMS),
    optax.MultiSteps(optax.adam(0.1), 2).init(PARAMS),
]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: type(tree).__name__)
def test_a_state_dict_is_flaxs_and_restores(tree):
    assert_same(lambda f: f.serialization.to_state_dict(tree))
    assert_same(lambda f: f.serialization.is_serializable(tree))
    assert_same(
        lambda f: f.serialization.from_state_dict(
            tree, f.serialization.to_state_dict(tree)
        )
    )


RESTORED = [
    ({"a": 1}, {"b": 1}),
    ({"a": 1}, {"a": 2, "b": 1}),
    ({"a": 1}, 3),
    ({1: 2, "1": 4}, {"1": 3}),
    ({"x": {"a": 1}}, {"x": {"b": 1}}),
    ({"x": {"a": 1}}, {"x": None}),
    ([1, 2], {"0": 1}),
    ([1], {"b": 1}),
    ([1], [1]),
    ((1,), {"0": 3}),
    ((1,), 3),
    (Pair(1, 2), {"left": 1}),
    (Pair(1, 2), {"left": 1, "right": 2, "top": 3}),
    (Pair(1, 2), {"0": 1, "1": 2}),
    (Pair(1, 2), 3),
    (
        Pair(1, 2),
        {
            "name": "Pair",
            "fields": {"0": "left", "1": "right"},
            "values": {"0": 4, "1": 5},
        },
    ),
    (optax.EmptyState(), {}),
    (np.ones(2), np.ones(3)),
    (np.ones(2), "text"),
    (None, {"a": 1}),
]


@pytest.mark.parametrize(("target", "state"), RESTORED, ids=str)
def test_restoring_does_what_flax_does(target, state):
    assert_same(lambda f: f.serialization.from_state_dict(target, state))


def test_the_path_is_in_the_error():
    with pytest.raises(ValueError, match=r"\{'b'\}.*\./layers/1"):
        serialization.from_state_dict(
            {"layers": [1, {"b": 2}]}, {"layers": {"0": 1, "1": {}}}
        )
    assert serialization.current_path() == ""


def registered(f, **override):
    f.serialization.register_serialization_state(
        Opaque,
        lambda x: {"path": f.serialization.current_path()},
        lambda x, state: (state, f.serialization.current_path()),
        **override,
    )
    tree = {"q": [Opaque()]}
    state = {"q": {"0": {"z": 1}}}
    return (
        f.serialization.to_state_dict(tree),
        f.serialization.from_state_dict(tree, state),
        f.serialization.is_serializable(Opaque),
    )


def test_a_registered_type():
    assert_same(registered)
    assert_same(registered)  # refused
    assert_same(lambda f: registered(f, override=True))


def test_a_state_with_keys_that_are_no_strings_is_refused():
    def program(f):
        kind = type("Kind", (), {})
        f.serialization.register_serialization_state(
            kind, lambda x: {1: 2}, lambda x, state: x
        )
        return f.serialization.to_state_dict(kind())

    assert_same(program)


PACKED = [
    {"b": 1, "a": {"d": 1.5, "c": "s"}},
    {"bytes": b"b", "none": None, "bool": True, "complex": 3 + 4j},
    [1, [2.0, {"a": [None]}]],
    {1: 2},
    {1: 2, "a": 3},
    {"f32": np.float32(3), "c64": np.complex64(1 + 2j), "b": np.bool_(True)},
    {"bf16": ml_dtypes.bfloat16(3), "f64": np.float64(2)},
    {"x": jnp.ones((2, 3), jnp.bfloat16), "y": jnp.arange(3, dtype=jnp.int4)},
    {"x": jnp.ones((), jnp.float8_e4m3fn), "y": jnp.zeros(2, bool)},
    np.arange(6).reshape(2, 3).T,
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(10)[::2],
    np.zeros((0, 3)),
    np.array(3),
    np.datetime64("2020-01-01"),
    bytearray(b"x"),
    2**70,
    (1,),
    Pair(1, 2),
    {1, 2},
    collections.OrderedDict(b=1),
    Opaque(),
    np.array([None]),
    np.array(["a"]),
    jax.random.key(0),
    jax.ShapeDtypeStruct((2,), jnp.float32),
]


@pytest.mark.parametrize("tree", PACKED, ids=str)
def test_the_bytes_are_flaxs(tree):
    assert_same(lambda f: f.serialization.msgpack_serialize(tree))
    assert_same(lambda f: f.serialization.to_bytes(tree))
    assert_same(
        lambda f: f.serialization.msgpack_restore(
            f.serialization.msgpack_serialize(tree)
        )
    )


DTYPES = st.sampled_from(
    [
        *["float16", "float32", "float64", "complex64", "complex128", "bool"],
        *["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
    ]
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_side=4))
LEAVES = (
    ARRAYS
    | ARRAYS.map(lambda x: x.T)
    | hnp.arrays("float32", hnp.array_shapes(max_side=4)).map(
        lambda x: x.astype(ml_dtypes.bfloat16)
    )
    | st.complex_numbers()
    | st.integers(-(2**63), 2**64 - 1)
    | st.none()
    | st.text()
    | st.binary()
)
KEYS = st.text("abcz", min_size=1, max_size=3)
STATES = st.recursive(
    LEAVES,
    lambda t: st.dictionaries(KEYS, t, max_size=3) | st.lists(t, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("chunk", [2**30, 16, 1])
@given(tree=STATES)
def test_any_tree_has_flaxs_bytes_in_chunks_of_any_size(chunk, tree):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(THEIRS.serialization, "MAX_CHUNK_SIZE", chunk)
        patch.setattr(OURS.serialization, "MAX_CHUNK_SIZE", chunk)
        theirs, ours = both(lambda s: s.to_bytes(tree))
        assert ours == theirs
        theirs, ours = both(lambda s: s.msgpack_restore(theirs))
        assert repr(ours) == repr(theirs)


def test_chunks_in_place_and_not(monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 16)
    tree = {"a": np.arange(10.0), "b": np.arange(2.0)}
    data = serialization.msgpack_serialize(tree)
    assert tree["a"].shape == (10,)
    assert serialization.msgpack_serialize(tree, in_place=True) == data
    assert sorted(tree["a"]) == ["__msgpack_chunked_array__", "chunks", "shape"]
    np.testing.assert_array_equal(
        serialization.msgpack_restore(data)["a"], np.arange(10.0)
    )


def test_other_byte_orders_come_back_right():
    big = np.arange(3, dtype=">i4")  # Flax stores its bytes as if they were native
    restored = serialization.msgpack_restore(serialization.msgpack_serialize(big))
    np.testing.assert_array_equal(restored, big)


def test_foreign_extensions_and_old_names_are_read():
    shape_name_bytes = msgpack.packb(((2,), b"bfloat16", b"\0" * 4))
    for code in (1, 9):
        data = msgpack.packb({"a": msgpack.ExtType(code, shape_name_bytes)})
        assert_same(lambda f, d=data: f.serialization.msgpack_restore(d))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x82\x01"])
def test_damaged_bytes_are_refused_as_flax_does(data):
    assert_same(lambda f: f.serialization.msgpack_restore(data))


def test_a_train_state_goes_from_one_library_to_the_other():
    tx = optax.adam(1e-3)
    state = {"params": PARAMS, "opt_state": tx.init(PARAMS), "step": 3}
    theirs, ours = both(lambda s: s.to_bytes(state))
    assert ours == theirs
    empty = jax.tree.map(np.zeros_like, state)
    for library in (THEIRS, OURS):
        restored = library.serialization.from_bytes(empty, ours)
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        jax.tree.map(np.testing.assert_array_equal, restored, state)
