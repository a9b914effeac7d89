"""Meshes, and rules on their own."""

import jax
import pytest
from jax.sharding import AxisType

from linnet import nn, parallel


def test_one_axis_takes_what_is_left():
    mesh = parallel.make_mesh(data=-1, model=2)
    assert dict(mesh.shape) == {"data": 2, "model": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert mesh.devices.ravel().tolist() == jax.devices()


def test_some_devices_and_explicit_axes():
    mesh = parallel.make_mesh(data=2, devices=jax.devices()[:2], explicit=True)
    assert mesh.size == 2
    assert mesh.axis_types == (AxisType.Explicit,)


@pytest.mark.parametrize(
    "axes", [{}, {"a": 3}, {"a": 0}, {"a": -1, "b": -1}, {"a": -2}, {"a": 2.0}]
)
def test_other_sizes_are_refused(axes):
    with pytest.raises(nn.ConfigError, match="LN-MESH-01"):
        parallel.make_mesh(**axes)


def test_rules_are_values():
    one = parallel.Rules({"batch": ["data", "pod"], "mlp": "model", "in": None})
    two = parallel.Rules({"batch": ("data", "pod"), "mlp": ("model",)})
    assert (one, hash(one)) == (two, hash(two))
    assert one.of("batch") == ("data", "pod")
    assert one.of("in") == one.of(None) == ()
    assert repr(one) == "Rules(batch=('data', 'pod'), mlp='model')"


def test_rules_are_put_together_and_taken_apart():
    rules = parallel.fsdp("fsdp", min_size=8) | parallel.data_parallel("data")
    assert rules.of("batch") == ("fsdp", "data")
    assert (rules.fsdp, rules.min_size) == (("fsdp",), 8)
    large = parallel.fsdp(min_size=2**20) | parallel.tensor_parallel()
    assert large.min_size == 2**20
    assert rules.users() == {"fsdp": ["batch", "fsdp"], "data": ["batch"]}
    assert rules.without("batch", "fsdp") == parallel.Rules()
    assert parallel.tensor_parallel() | parallel.tensor_parallel() == (
        parallel.tensor_parallel()
    )
