"""Which rows of a batch a host brings, on meshes of several hosts."""

import types

import jax
import numpy as np
import pytest

from prompt_tuning.core import axes
from prompt_tuning.infer import programs


def mesh(hosts):
  """A stand-in for a mesh; entries are process numbers."""
  hosts = np.asarray(hosts)
  devices = np.empty(hosts.shape, object)
  for place, host in np.ndenumerate(hosts):
    devices[place] = types.SimpleNamespace(process_index=int(host))
  return types.SimpleNamespace(
    devices=devices,
    axis_names=(axes.SLICE, axes.DATA, axes.MODEL)[-hosts.ndim :],
  )


def shards(monkeypatch, hosts):
  found = []
  for host in range(np.max(hosts) + 1):
    monkeypatch.setattr(jax, "process_index", lambda host=host: host)
    found.append(axes.data_shard(mesh(hosts)))
  return found


@pytest.mark.parametrize(
  ("hosts", "expected"),
  [
    ([[0], [0], [1], [1]], [(0, 2), (1, 2)]),
    ([[0, 0], [1, 1]], [(0, 2), (1, 2)]),
    # The model is split over the hosts: they bring the same rows.
    ([[0, 1]], [(0, 1), (0, 1)]),
    ([[0, 1], [0, 1]], [(0, 1), (0, 1)]),
    ([[0, 1], [2, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),
    # Two slices: of two hosts each, and of one host each.
    ([[[0], [1]], [[2], [3]]], [(0, 4), (1, 4), (2, 4), (3, 4)]),
    ([[[0, 0], [0, 0]], [[1, 1], [1, 1]]], [(0, 2), (1, 2)]),
  ],
)
def test_each_host_has_its_part(hosts, expected, monkeypatch):
  assert shards(monkeypatch, hosts) == expected


def test_one_host_brings_everything():
  assert axes.data_shard(None) == (0, 1)
  assert axes.data_shard(axes.make_mesh(data=4, model=2)) == (0, 1)


@pytest.mark.parametrize("hosts", [[[0], [1], [0], [1]], [[0], [1], [1]]])
def test_scattered_or_unequal_hosts_are_refused(hosts, monkeypatch):
  with pytest.raises(ValueError, match="expected an equal, contiguous"):
    shards(monkeypatch, hosts)


def tpu(number, slice_index):
  return types.SimpleNamespace(
    id=number, platform="tpu", slice_index=slice_index, process_index=0
  )


def test_tpus_say_which_slice_they_are_of():
  # Hosts of two slices may be counted in turn.
  devices = [tpu(number, number % 2) for number in range(8)]
  groups = axes._by_slice(devices, None)
  assert [[d.slice_index for d in group] for group in groups] == [
    [0] * 4,
    [1] * 4,
  ]
  with pytest.raises(ValueError, match="these TPUs belong to 2 slices"):
    axes._by_slice(devices, 4)
  # Two and six: halves of the list would be no slices.
  unequal = [tpu(number, number // 2 > 0) for number in range(8)]
  with pytest.raises(ValueError, match=r"slices of these TPUs have \[2, 6\]"):
    axes._by_slice(unequal, None)


def test_others_are_grouped_as_they_are_counted():
  mesh = axes.make_mesh(data=4, model=2, slices=2)
  assert mesh.shape == {"slice": 2, "data": 2, "model": 2}
  ids = [device.id for device in mesh.devices.ravel()]
  assert sorted(ids[:4]) == [0, 1, 2, 3]
  assert axes.make_mesh(data=4, model=2).axis_names == ("data", "model")


@pytest.mark.parametrize(
  ("shape", "says"),
  [
    ((4, 2, 3), "NUM_SLICES is 3, which does not divide the 8"),
    ((1, 8, 2), "each of the 2 slices has 4 devices"),
    ((2, 2, 2), "this job has 8"),
  ],
)
def test_slices_that_cannot_be(shape, says):
  with pytest.raises(ValueError, match=says):
    axes.make_mesh(*shape)


@pytest.mark.parametrize("rules", ["STANDARD_RULES", "FULLY_SHARDED_RULES"])
def test_slices_share_rows_and_nothing_else(rules):
  mesh = axes.make_mesh(data=4, model=2, slices=2)
  rows = np.arange(8)[:, None]
  placed = axes.batch_sharder(mesh, getattr(axes, rules))({"x": rows})["x"]
  of_row = {
    (shard.index[0].start, shard.index[0].stop): shard.device.id // 4
    for shard in placed.addressable_shards
  }
  assert of_row == {(0, 2): 0, (2, 4): 0, (4, 6): 1, (6, 8): 1}
  assert programs.put({"x": rows}, mesh)["x"].sharding.is_equivalent_to(
    placed.sharding, 2
  )
  spec = axes.sharding(mesh, ("embed", "mlp"), getattr(axes, rules)).spec
  assert axes.SLICE not in spec
