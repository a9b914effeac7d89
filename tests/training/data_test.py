"""Batches: their order, their state, their place."""

import json

import jax
import numpy as np
import pytest

from helpers import assert_close
from linnet import nn, parallel, training


def taken(batches, count):
    it = iter(batches)
    return [next(it) for _ in range(count)]


def test_each_epoch_has_every_example_once_in_another_order():
    source = {"x": np.arange(12), "y": -np.arange(12)}
    batches = taken(training.loader(source, 4, seed=3), 6)
    first, second = (
        np.concatenate([b["x"] for b in part]) for part in (batches[:3], batches[3:])
    )
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()
    assert all((b["x"] == -b["y"]).all() for b in batches)
    again = taken(training.loader(source, 4, seed=3), 6)
    for a, b in zip(batches, again, strict=True):
        assert np.array_equal(a["x"], b["x"])


def test_the_end_of_an_epoch_may_be_a_part_of_a_batch():
    options = {"epochs": 1, "shuffle": False}
    parts = training.loader(np.arange(7), 3, drop_remainder=False, **options)
    assert [x.tolist() for x in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(list(training.loader(np.arange(7), 3, **options))) == 2
    twice = training.loader(np.arange(4), 2, transform=lambda x: 2 * x, **options)
    assert next(iter(twice)).tolist() == [0, 2]


@pytest.mark.parametrize("prefetched", [False, True])
def test_what_follows_a_state_is_the_same_in_another_run(prefetched):
    def batches():
        found = training.loader(np.arange(20), 3, seed=1)
        return training.Prefetch(found) if prefetched else iter(found)

    one = batches()
    taken(one, 4)
    state = json.loads(json.dumps(one.get_state()))
    expected = taken(one, 5)
    other = batches()
    other.set_state(state)
    for a, b in zip(expected, taken(other, 5), strict=True):
        assert np.array_equal(a, b)


def test_the_state_is_of_the_batch_handed_out_and_not_of_those_that_wait():
    source = training.loader(np.arange(8), 2, epochs=1, shuffle=False)
    batches = training.Prefetch(source, size=3)
    assert next(batches).tolist() == [0, 1]
    fresh = iter(source)
    fresh.set_state(batches.get_state())
    assert next(fresh).tolist() == [2, 3]
    assert [x.tolist() for x in batches] == [[2, 3], [4, 5], [6, 7]]


def test_processes_read_parts_that_make_up_the_whole():
    parts = [
        np.concatenate(
            taken(training.loader(np.arange(12), 4, epochs=1, process=(i, 2)), 3)
        )
        for i in range(2)
    ]
    assert sorted(np.concatenate(parts)) == list(range(12))
    assert len(parts[0]) == 6
    with pytest.raises(nn.ConfigError, match="LN-DATA-02"):
        training.loader(np.arange(12), 3, process=(0, 2))


def test_batches_are_placed_on_a_mesh():
    mesh = parallel.make_mesh(data=4)
    source = {"x": np.arange(16.0, dtype=np.float32).reshape(8, 2)}
    shardings = parallel.shardings(
        {"x": source["x"]}, mesh, parallel.data_parallel(), axes=("batch",)
    )
    batches = training.loader(source, 8, shuffle=False)
    batch = next(training.Prefetch(batches, sharding=shardings))
    assert batch["x"].sharding.spec == jax.P("data")
    assert_close(batch["x"], source["x"])


def test_windows_of_tokens():
    windows = training.Windows(np.arange(10), 4, stride=3)
    assert [w.tolist() for w in windows] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert len(training.Windows(np.arange(3), 4)) == 0
    batch = next(iter(training.loader(windows, 3, shuffle=False)))
    assert batch.shape == (3, 4)


def test_a_dataset_of_hugging_face():
    import datasets

    source = datasets.Dataset.from_dict({"a": [1, 2, 3], "b": [[0.5], [1.5], [2.5]]})
    batch = next(iter(training.loader(source, 2, shuffle=False)))
    assert batch["a"].tolist() == [1, 2]
    assert batch["b"].shape == (2, 1)


class DataSource:
    """What `tfds.data_source` returns: a sequence of dicts, which is not installed."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"image": np.full((2, 2), index), "label": index}


def test_a_data_source_like_that_of_tensorflow_datasets():
    batch = next(iter(training.loader(DataSource(), 2, shuffle=False)))
    assert batch["image"].shape == (2, 2, 2)
    assert batch["label"].tolist() == [0, 1]


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(nn.ConfigError, match="LN-DATA-01"):
        training.loader({"x": np.arange(3), "y": np.arange(4)}, 2)
