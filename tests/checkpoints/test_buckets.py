"""Checkpoints in buckets: of what is restored, only what is needed is read."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning.checkpoints import bundle, hf, loading, restore, t5x_writer
from prompt_tuning.checkpoints.bundle import Bundle
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import files, object_store
from prompt_tuning.models.t5 import config as t5_config
from tests.bucket_servers import get_tree

TABLE = "token_embedder/embedding"  # half of the model
ROWS = slice(1_000, 2_000)
CONFIG = t5_config.get("t5_1_1_tiny")


@pytest.fixture(scope="module")
def leaves(random_params):
  return restore.leaves_of(random_params(CONFIG))


def write(kind, url, leaves):
  if kind == "t5x":
    t5x_writer.write_t5x(url, leaves, step=7)
  else:
    hf.write_hf(url, leaves, CONFIG)


@pytest.mark.parametrize("kind", ["t5x", "hf"])
def test_only_what_is_needed_is_read(kind, bucket, leaves):
  """A leaf, and rows of one; the whole is many times as large."""
  url = f"{bucket.folder()}/checkpoint_7"
  write(kind, url, leaves)
  total = sum(len(data) for data in get_tree(url).values())
  start = bucket.proxy.bytes_read()
  checkpoint = restore.open_checkpoint(url)
  opened = bucket.proxy.bytes_read()
  leaf = checkpoint.params[TABLE]
  whole = leaf.read()
  read = bucket.proxy.bytes_read()
  np.testing.assert_array_equal(whole, leaves[TABLE].read())
  assert read - opened < leaf.nbytes + 8_000
  assert opened - start < total / 5
  if kind == "hf":  # of zarr, a chunk is read whole
    out = np.empty(whole[ROWS].shape, whole.dtype)
    leaf.read_into((ROWS, slice(0, whole.shape[1])), out)
    np.testing.assert_array_equal(out, whole[ROWS])
    assert bucket.proxy.bytes_read() - read < out.nbytes + 2_000


def test_a_host_reads_what_its_devices_need(gs, leaves):
  """Two halves of a split kernel are read once."""
  url = f"{gs.folder()}/model"
  write("hf", url, leaves)
  devices = Mesh(np.array(jax.devices()[:2]), ("model",))
  split = NamedSharding(devices, PartitionSpec("model", None))
  shape = jax.ShapeDtypeStruct(leaves[TABLE].shape, np.float32, sharding=split)
  leaf = restore.open_checkpoint(url).params[TABLE]
  before = gs.proxy.bytes_read()
  (array,) = loading.load(url, {TABLE: leaf}, {TABLE: shape}).values()
  np.testing.assert_array_equal(array, leaves[TABLE].read())
  assert gs.proxy.bytes_read() - before < 1.1 * leaf.nbytes


def saved(value):
  arrays = {"a": np.full((1, 3), value, np.float32)}
  return Bundle({"run": {}, "step": 1}, arrays, {"b": arrays["a"]})


def test_half_a_bundle_is_not_there(bucket):
  """To readers; its own writer deletes it, or puts a whole one there."""
  folder = bucket.folder()
  for step in (1, 2, 3):
    bundle.write(bundle.step_path(folder, step), saved(step))
  last = bundle.step_path(folder, 3)
  files.remove(last / bundle.MANIFEST)
  assert bundle.steps(folder) == [1, 2]
  step, newest = bundle.read_latest(folder)
  assert (step, newest.trainable["a"][0, 0]) == (2, 2)
  with pytest.raises(CheckpointError, match=r"manifest\.json"):
    bundle.read(last)
  bundle.write(last, saved(4))
  assert bundle.read(last).resume["b"][0, 0] == 4
  files.remove(last / bundle.MANIFEST)
  bundle.keep_only(folder, {1})
  assert set(get_tree(folder)) == {
    f"step_00000001/{name}"
    for name in (
      "manifest.json",
      "trainable.safetensors",
      "resume.safetensors",
    )
  }
  # Generations that an overwrite mixed are told by the digests.
  first = bundle.step_path(folder, 1)
  files.write_bytes(first / "trainable.safetensors", b"of another generation")
  with pytest.raises(CheckpointError, match="damaged"):
    bundle.read(first)


def test_a_server_that_fails_does_not_make_a_bundle_damaged(s3, monkeypatch):
  """Otherwise an older one would be taken in its place."""
  folder = s3.folder()
  bundle.write(bundle.step_path(folder, 1), saved(1))
  monkeypatch.setattr(object_store, "PATIENCE_S", 0.3)
  with s3.proxy.down(), pytest.raises(files.StoreError, match="server failed"):
    bundle.read_latest(folder)
  assert bundle.read_latest(folder)[0] == 1
