"""T5X's checkpoints in Orbax's layouts, written by Orbax itself."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from prompt_tuning.checkpoints import restore
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import tree

KERNEL = "encoder/layers_0/attention/query/kernel"


def assert_holds(checkpoint, flat):
  assert checkpoint.params.keys() == flat.keys()
  for name, array in flat.items():
    read = checkpoint.params[name].read()
    np.testing.assert_array_equal(read, array, err_msg=name)
    assert read.dtype == array.dtype


@pytest.mark.parametrize("kind", ["orbax", "orbax_folders"])
@pytest.mark.parametrize("item", ["", "state"])
def test_reads_what_t5x_saves(checkpoints, flat, kind, item):
  checkpoint = restore.open_checkpoint(checkpoints[kind] / item)
  assert checkpoint.format == "orbax"
  assert checkpoint.step == 7
  assert_holds(checkpoint, flat)
  state = checkpoint.open_state()
  assert state.keys() == {f"param_states/{name}/v" for name in flat}
  assert not state[f"param_states/{KERNEL}/v"].read().any()  # zeros are stored


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_step_of_a_resumed_run(tools, tmp_path, dtype):
  """T5X writes it as a float32 scalar once it has restored it."""
  target = {"a": np.ones(3, np.float32)}
  path = tools.write_orbax(tmp_path, target, step=1_150_000, step_dtype=dtype)
  assert restore.open_checkpoint(path).step == 1_150_000


@pytest.mark.parametrize("step", [1.5, np.nan, np.inf, -1.0])
def test_a_step_that_is_none(tools, tmp_path, step):
  target = {"a": np.ones(3, np.float32)}
  path = tools.write_orbax(tmp_path, target)
  state = {"step": np.asarray(step, np.float32)}
  tools.write_msgpack(path / "state" / "checkpoint", {"state": state})
  with pytest.raises(CheckpointError, match=f"whole number.*found {step}"):
    restore.open_checkpoint(path)


@pytest.mark.parametrize("ocdbt", [True, False])
def test_zarr3(flat, tools, tmp_path, ocdbt):
  target = tree.unflatten(flat)
  path = tools.write_orbax(tmp_path, target, ocdbt=ocdbt, use_zarr3=True)
  assert_holds(restore.open_checkpoint(path), flat)


def test_sharded_bfloat16(flat, tools, tmp_path):
  """As T5X saves on a mesh: one chunk per shard."""
  mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
  cast = {name: array.astype(jnp.bfloat16) for name, array in flat.items()}
  sharded = {
    name: jax.device_put(array, sharding) if len(array) % 8 == 0 else array
    for name, array in cast.items()
  }
  path = tools.write_orbax(tmp_path, tree.unflatten(sharded))
  assert_holds(restore.open_checkpoint(path), cast)


@pytest.mark.parametrize("root", ["", "optimizer", "_optimizer"])
@pytest.mark.parametrize("item", ["", "state"])
def test_older_layout(flat, tools, tmp_path, root, item):
  """A msgpack file whose leaves are arrays or names of zarr folders."""
  path = tmp_path / "checkpoint_7"
  folder = path / item
  nodes = {"state/step": np.asarray(7, np.int32)}
  for name, array in flat.items():
    dotted = ".".join(["target", *name.split("/")])
    if array.ndim == 2:
      tools.write_zarr(folder, dotted, array)
      nodes[f"target/{name}"] = f"PLACEHOLDER://{dotted}"
    else:
      nodes[f"target/{name}"] = array
  contents = tree.unflatten(nodes)
  tools.write_msgpack(
    folder / "checkpoint", {root: contents} if root else contents
  )
  checkpoint = restore.open_checkpoint(path)
  assert (checkpoint.format, checkpoint.step) == ("orbax", 7)
  assert_holds(checkpoint, flat)


def test_older_layout_in_a_database(checkpoints, flat, tmp_path):
  """Before `_METADATA`, OCDBT had the same msgpack file beside it."""
  folder = shutil.copytree(
    checkpoints["orbax"] / "state", tmp_path / "checkpoint_7" / "state"
  )
  (folder / "_METADATA").unlink()
  nodes = {
    f"target/{name}": "PLACEHOLDER://target." + name.replace("/", ".")
    for name in flat
  }
  nodes["state/step"] = "PLACEHOLDER://state.step"
  contents = serialization.msgpack_serialize(tree.unflatten(nodes))
  (folder / "checkpoint").write_bytes(contents)
  checkpoint = restore.open_checkpoint(tmp_path / "checkpoint_7")
  assert checkpoint.step == 7
  assert_holds(checkpoint, flat)


def test_a_placeholder_cannot_lead_out(flat, tools, tmp_path):
  tools.write_zarr(tmp_path, "outside", np.ones((2, 2), np.float32))
  contents = {"target": {"a": "PLACEHOLDER://../outside"}}
  tools.write_msgpack(tmp_path / "checkpoint_1" / "checkpoint", contents)
  with pytest.raises(CheckpointError, match="inside the checkpoint"):
    restore.open_checkpoint(tmp_path / "checkpoint_1")


@pytest.fixture
def folder(checkpoints, tmp_path):
  """A copy of the tiny checkpoint that a test may damage."""
  path = shutil.copytree(checkpoints["orbax"], tmp_path / "checkpoint_7")
  return path / "state"


def test_unfinished(folder, tmp_path):
  moved = folder.parent.rename(
    tmp_path / "checkpoint_7.orbax-checkpoint-tmp-123"
  )
  with pytest.raises(CheckpointError, match="a finished checkpoint"):
    restore.open_checkpoint(moved)


@pytest.mark.parametrize(
  "text",
  ["", "{", "[]", "{}", '{"tree_metadata": 3}', '{"tree_metadata": {"a": {}}}'],
)
def test_damaged_metadata(folder, text):
  (folder / "_METADATA").write_text(text)
  with pytest.raises(CheckpointError):
    restore.open_checkpoint(folder)


def test_a_leaf_that_is_not_in_the_database(folder):
  metadata = json.loads((folder / "_METADATA").read_text())
  entry = next(
    entry
    for key, entry in metadata["tree_metadata"].items()
    if key == "('target', 'token_embedder', 'embedding')"
  )
  entry["key_metadata"][-1]["key"] = "renamed"
  (folder / "_METADATA").write_text(json.dumps(metadata))
  with pytest.raises(CheckpointError, match="renamed: expected an array"):
    restore.open_checkpoint(folder)


def test_a_missing_database_file(folder, tools):
  for file in sorted(folder.glob("**/d/*")):
    file.unlink()
  with pytest.raises(CheckpointError) as caught:
    restore.restore(folder, tools.structs())
  wrong = {m.path for m in caught.value.mismatches}
  assert wrong == {*tree.flatten(tools.structs()), "state/step"}
