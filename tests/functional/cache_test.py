"""Writing into caches: slots of a ring, and what has none."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet.functional._cache import slots_of, write_slots


@settings(max_examples=20)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=3, max_size=3),
)
def test_entries_are_written_to_their_slots_and_others_nowhere(capacity, entries):
    cache, new = normal((1, capacity, 2)), normal((1, 3, 2), 1)
    positions = np.array([[position for position, _ in entries]])
    is_kept = np.array([[kept for _, kept in entries]])
    expected = np.array(cache)
    seen = set()
    for i, (position, kept) in enumerate(entries):
        is_kept[0, i] = kept = kept and position % capacity not in seen
        if kept:
            seen.add(position % capacity)
            expected[0, position % capacity] = new[0, i]
    slots = slots_of(jnp.asarray(positions, jnp.int32), jnp.asarray(is_kept), capacity)
    assert len(set(slots[0].tolist())) == 3
    assert_close(write_slots(cache, new, slots), expected)


def test_rows_have_slots_of_their_own_and_the_cache_keeps_its_dtype():
    cache = jnp.zeros((2, 3), jnp.bfloat16)
    slots = jnp.array([[0, 3], [2, 1]])
    new = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    out = jax.jit(write_slots)(cache, new, slots)
    assert out.dtype == jnp.bfloat16
    assert_close(out, np.array([[1.0, 0.0, 0.0], [0.0, 4.0, 3.0]]))


def test_gradients_go_to_what_was_written_and_what_was_kept():
    cache, new, slots = jnp.ones((1, 3)), jnp.ones((1, 2)), jnp.array([[1, 4]])
    grads = jax.grad(lambda c, n: (write_slots(c, n, slots) ** 2).sum(), (0, 1))
    of_cache, of_new = grads(cache, new)
    assert_close(of_cache, np.array([[2.0, 0.0, 2.0]]))
    assert_close(of_new, np.array([[2.0, 0.0]]))
