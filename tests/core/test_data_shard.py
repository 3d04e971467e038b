"""Which rows of a batch a host brings, on meshes of several hosts."""

import types

import jax
import numpy as np
import pytest

from prompt_tuning.core import axes


def mesh(hosts):
  """A stand-in for a (data, model) mesh; entries are process numbers."""
  hosts = np.asarray(hosts)
  devices = np.empty(hosts.shape, object)
  for place, host in np.ndenumerate(hosts):
    devices[place] = types.SimpleNamespace(process_index=int(host))
  return types.SimpleNamespace(
    devices=devices, axis_names=(axes.DATA, axes.MODEL)
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
  ],
)
def test_each_host_has_its_part(hosts, expected, monkeypatch):
  assert shards(monkeypatch, hosts) == expected


def test_one_host_brings_everything():
  assert axes.data_shard(None) == (0, 1)
  assert axes.data_shard(axes.make_mesh(data=4, model=2)) == (0, 1)


@pytest.mark.parametrize("hosts", [[[0], [1], [0], [1]], [[0], [1], [1]]])
def test_scattered_or_unequal_hosts_are_refused(hosts, monkeypatch):
  with pytest.raises(ValueError, match="a host needs an equal, contiguous"):
    shards(monkeypatch, hosts)
