"""Straight into the target's dtype and sharding, reading what is needed."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.checkpoints import loading, restore
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.checkpoints.source import ArrayLeaf, Leaf
from prompt_tuning.core import axes, tree
from prompt_tuning.models.t5 import network

P = jax.sharding.PartitionSpec


@pytest.fixture(scope="module")
def mesh():
  return axes.make_mesh(data=2, model=4)


def on_mesh(config, mesh, dtype=np.float32, rules=axes.FULLY_SHARDED_RULES):
  """The restore target of a model that is sharded over both mesh axes."""
  # 3 dimensions per head do not divide over 4 ways; the rest does.
  flat_axes = tree.flatten(network.logical_axes(config))
  flat = {}
  for path, struct in tree.flatten(network.abstract_params(config)).items():
    sharding = axes.sharding(mesh, flat_axes[path], rules)
    flat[path] = jax.ShapeDtypeStruct(struct.shape, dtype, sharding=sharding)
  return tree.unflatten(flat)


def stacked(flat, config):
  """Stack a model's layers by hand."""
  out = {}
  for path in tree.flatten(network.abstract_params(config)):
    if "/layers/" not in path:
      out[path] = flat[path]
      continue
    decoder = path.startswith("decoder")
    count = config.num_decoder_layers if decoder else config.num_encoder_layers
    parts = [path.replace("layers", f"layers_{i}") for i in range(count)]
    out[path] = np.stack([flat[part] for part in parts])
  return out


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sharded_equals_unsharded(checkpoint, flat, tools, mesh, dtype, scan):
  config = dataclasses.replace(tools.config, scan_layers=scan)
  expected = stacked(flat, config) if scan else flat
  target = on_mesh(config, mesh, dtype)
  plain = tree.flatten(
    restore.restore(checkpoint, tools.structs(config, dtype))
  )
  sharded = tree.flatten(restore.restore(checkpoint, target))
  assert plain.keys() == sharded.keys() == expected.keys()
  partitioned = 0
  for name, array in expected.items():
    for restored in (plain[name], sharded[name]):
      assert restored.dtype == dtype
      np.testing.assert_array_equal(np.asarray(restored), array.astype(dtype))
    wanted = tree.flatten(target)[name].sharding
    assert sharded[name].sharding.is_equivalent_to(wanted, array.ndim)
    partitioned += not sharded[name].is_fully_replicated
  assert partitioned > len(expected) / 2


def test_restored_arrays_compute_and_donate(checkpoint, flat, tools):
  """On CPU they share the memory they were read into; nobody may notice."""
  params = restore.restore(checkpoint, tools.structs())
  again = restore.restore(checkpoint, tools.structs())
  doubled = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0
  )(params)
  name = "token_embedder/embedding"
  np.testing.assert_array_equal(tree.flatten(doubled)[name], 2 * flat[name])
  np.testing.assert_array_equal(tree.flatten(again)[name], flat[name])


def bytes_read():
  """What TensorStore has read from files so far."""
  (metric,) = ts.experimental_collect_matching_metrics(
    "/tensorstore/kvstore/file/bytes_read"
  )
  return metric["values"][0]["value"]


@pytest.mark.parametrize(("rows", "chunks"), [((0, 8), 1), ((8, 24), 2)])
def test_a_shard_reads_only_its_chunks(tools, tmp_path, rows, chunks):
  """Uncompressed chunks of 8 rows, so that bytes can be counted."""
  array = np.arange(32 * 512, dtype=np.float32).reshape(32, 512)
  tools.write_zarr(
    tmp_path, "target.a", array, chunks=[8, 512], compressor=None
  )
  tools.write_msgpack(
    tmp_path / "checkpoint",
    {"target": {"a": "PLACEHOLDER://target.a"}},
  )
  leaf = restore.open_checkpoint(tmp_path).params["a"]
  before = bytes_read()
  out = np.empty((rows[1] - rows[0], 512), np.float32)
  leaf.read_into((slice(*rows), slice(0, 512)), out)
  assert bytes_read() - before == chunks * 8 * 512 * 4
  np.testing.assert_array_equal(out, array[slice(*rows)])


def test_shards_do_not_decode_a_chunk_twice(checkpoints, flat, mesh):
  """Eight devices, one host: what all need of an array is read once."""
  name = "token_embedder/embedding"
  folder = checkpoints["t5x"] / f"target.{name.replace('/', '.')}"
  leaf = restore.open_checkpoint(checkpoints["t5x"]).params[name]
  sharding = jax.NamedSharding(mesh, P(("data", "model"), None))
  before = bytes_read()
  struct = jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=sharding)
  array = loading.load_leaf(leaf, struct)
  np.testing.assert_array_equal(np.asarray(array), flat[name])
  assert bytes_read() - before == (folder / "0.0").stat().st_size


class TestHostBoxes:
  def boxes(self, shape, spec, mesh):
    return loading.host_boxes(jax.NamedSharding(mesh, spec), shape)

  def test_one_box_for_shards_that_fill_it(self, mesh):
    boxes = self.boxes((8, 4), P("model", "data"), mesh)
    assert len(boxes) == 8
    assert set(boxes.values()) == {((0, 8), (0, 4))}

  def test_replicas_are_read_once(self, mesh):
    assert self.boxes((8,), P(), mesh) == {((0, 8),): ((0, 8),)}
    assert self.boxes((), P(), mesh) == {(): ()}

  def test_only_the_hosts_own_part(self, mesh, monkeypatch):
    """As on the second of two hosts, which has every other device."""
    sharding = jax.NamedSharding(mesh, P("data", "model"))
    everywhere = sharding.addressable_devices_indices_map((8, 4))
    mine = {d: i for d, i in everywhere.items() if i[0].start == 4}

    class Host:
      def addressable_devices_indices_map(self, shape):
        return mine

    boxes = loading.host_boxes(Host(), (8, 4))
    assert len(boxes) == 4
    assert set(boxes.values()) == {((4, 8), (0, 4))}

  def test_shards_with_gaps_are_read_one_by_one(self, mesh):
    sharding = jax.NamedSharding(mesh, P("data", "model"))
    everywhere = sharding.addressable_devices_indices_map((8, 4))
    corners = [i for i in everywhere.values() if i[1].start in (0, 3)]

    class Host:
      def addressable_devices_indices_map(self, shape):
        return dict(enumerate(corners))

    boxes = loading.host_boxes(Host(), (8, 4))
    assert boxes == {box: box for box in boxes}
    assert len(boxes) == 4


@dataclasses.dataclass(frozen=True)
class Watched(Leaf):
  """Notes how many bytes are being read at once."""

  log: object

  def read_into(self, box, out):
    with self.log.lock:
      self.log.now += self.nbytes
      self.log.most = max(self.log.most, self.log.now)
      self.log.order.append(self.nbytes)
    self.log.pause.wait(0.002)
    out[...] = 0
    with self.log.lock:
      self.log.now -= self.nbytes


class Log:
  def __init__(self):
    self.lock, self.pause = threading.Lock(), threading.Event()
    self.now, self.most, self.order = 0, 0, []


def watched(sizes_, log):
  leaves = {
    str(i): Watched(str(i), (n,), np.dtype("f4"), log)
    for i, n in enumerate(sizes_)
  }
  target = {
    k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in leaves.items()
  }
  return leaves, target


def test_bytes_in_flight_stay_within_the_budget(monkeypatch):
  monkeypatch.setattr(loading.os, "cpu_count", lambda: 16)
  log = Log()
  leaves, target = watched([200_000] * 60, log)  # 0.8 MB each, 48 MB in all
  loading.load("path", leaves, target)
  assert 2 * 800_000 <= log.most <= 48_000_000 / 20


def test_the_largest_leaves_are_read_first_and_alone(monkeypatch):
  """Later, they would stand on top of everything already restored."""
  monkeypatch.setattr(loading.os, "cpu_count", lambda: 16)
  log = Log()
  leaves, target = watched([1_000, 5_000_000, 2_000, 4_000_000], log)
  loading.load("path", leaves, target)
  assert log.order[:2] == [20_000_000, 16_000_000]
  assert log.most == 20_000_000


@given(st.integers(0, 7))
def test_all_damage_is_reported_and_nothing_returned(which):
  array = np.ones(3, np.float32)

  class Broken:
    dtype = array.dtype

    def __getitem__(self, index):
      raise OSError(f"disk {which}")

  good = ArrayLeaf("good", (3,), array.dtype, array)
  bad = ArrayLeaf("bad", (3,), array.dtype, Broken())
  leaves = {str(i): bad if which >> i & 1 else good for i in range(3)}
  target = {k: jax.ShapeDtypeStruct((3,), np.float32) for k in leaves}
  if not which:
    assert loading.load("path", leaves, target).keys() == leaves.keys()
    return
  with pytest.raises(CheckpointError, match=f"disk {which}") as caught:
    loading.load("path", leaves, target)
  damaged = [i for i in range(3) if which >> i & 1]
  assert [m.path for m in caught.value.mismatches] == list(map(str, damaged))


def test_restoring_into_the_first_device_by_default(checkpoint, tools):
  params = restore.restore(checkpoint, tools.structs(dtype=jnp.bfloat16))
  for array in jax.tree.leaves(params):
    assert array.devices() == {jax.devices()[0]}


@given(data=st.data())
def test_a_box_of_any_format_is_numpys_slice(checkpoints, flat, tools, data):
  kind = data.draw(st.sampled_from(tools.formats))
  name = data.draw(st.sampled_from(sorted(flat)))
  leaf = restore.open_checkpoint(checkpoints[kind]).params[name]
  box = []
  for size in leaf.shape:
    start = data.draw(st.integers(0, size - 1))
    box.append(slice(start, data.draw(st.integers(start + 1, size))))
  dtype = data.draw(st.sampled_from(("float32", "bfloat16")))
  out = np.empty([s.stop - s.start for s in box], dtype)
  leaf.read_into(tuple(box), out)
  np.testing.assert_array_equal(out, flat[name][tuple(box)].astype(dtype))
