"""T5X's native format: the sample, the older forms, and what is refused."""

import copy
import gzip
import json
import os
import shutil

import numpy as np
import pytest
import tensorstore as ts
from flax import serialization
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.checkpoints import restore, sizes, stores, t5x_writer
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network

KERNEL = "encoder/layers_0/attention/query/kernel"
DOTTED = "target.encoder.layers_0.attention.query.kernel"


@pytest.fixture
def folder(checkpoints, tmp_path):
  """A copy of the tiny checkpoint that a test may damage."""
  return shutil.copytree(checkpoints["t5x"], tmp_path / "checkpoint_7")


def edit(folder, change):
  """Rewrite the msgpack file with a change to its tree."""
  file = folder / "checkpoint"
  contents = serialization.msgpack_restore(file.read_bytes())
  change(contents)
  file.write_bytes(serialization.msgpack_serialize(contents))


def edit_spec(folder, change):
  """Rewrite the TensorStore spec of one kernel."""

  def changed(contents):
    node = contents["optimizer"]["target"]
    for part in KERNEL.split("/")[:-1]:
      node = node[part]
    node["kernel"] = change(copy.deepcopy(node["kernel"]))

  edit(folder, changed)


def test_the_sample(shared_data):
  path = shared_data / "t5x_tiny" / "checkpoint_3"
  checkpoint = restore.open_checkpoint(path)
  config = t5_config.get("t5_1_1_tiny")
  expected = {
    path: struct.shape
    for path, struct in tree.flatten(network.abstract_params(config)).items()
  }
  assert checkpoint.format == "t5x"
  assert checkpoint.step == 3
  assert {p: x.shape for p, x in checkpoint.params.items()} == expected
  assert {x.dtype.name for x in checkpoint.params.values()} == {"float32"}
  assert len(checkpoint.params) == 52
  assert sum(x.size for x in checkpoint.params.values()) == 257_856
  assert sizes.infer_config(checkpoint) == config


def test_the_samples_arrays_decoded_by_hand(shared_data):
  path = shared_data / "t5x_tiny" / "checkpoint_3"
  params = restore.open_checkpoint(path).params
  folder = path / "target.token_embedder.embedding"
  # The last chunk is stored at full size, though only 3,456 of its 4,096 rows
  # belong to the array.
  chunks = [gzip.decompress((folder / f"{i}.0").read_bytes()) for i in range(8)]
  table = np.frombuffer(b"".join(chunks), "<f4").reshape(-1, 4)
  assert table.shape == (8 * 4096, 4)
  embedding = params["token_embedder/embedding"].read()
  np.testing.assert_array_equal(embedding, table[:32_128])
  msgpack = serialization.msgpack_restore((path / "checkpoint").read_bytes())
  scale = msgpack["optimizer"]["target"]["encoder"]["encoder_norm"]["scale"]
  ours = params["encoder/encoder_norm/scale"].read()
  np.testing.assert_array_equal(ours, scale)


def test_the_samples_optimizer_state(shared_data):
  path = shared_data / "t5x_tiny" / "checkpoint_3"
  state = restore.open_checkpoint(path).open_state()
  assert len(state) == 4 * 52  # m, v, v_row, v_col
  assert state["param_states/token_embedder/embedding/v"].shape == (32_128, 4)
  v = state["param_states/encoder/encoder_norm/scale/v"].read()
  assert v.dtype == np.float32
  assert (v > 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip_keeps_every_byte(flat, tmp_path, dtype):
  # Every bit pattern, NaNs with payloads among them.
  raw = np.random.default_rng(1).bytes(4 * 8 * 12)
  cast = {k: v.astype(dtype) for k, v in flat.items()}
  cast[KERNEL] = np.frombuffer(raw, cast[KERNEL].dtype)[:96].reshape(8, 12)
  leaves = restore.leaves_of(tree.unflatten(cast))
  state = {
    "param_states/a/v": leaves[KERNEL],
    "param_states/a/m": leaves[KERNEL],
  }
  path = tmp_path / "checkpoint_9"
  t5x_writer.write_t5x(path, leaves, step=9, state=state)
  again = restore.open_checkpoint(path)
  assert again.step == 9
  assert again.params.keys() == flat.keys()
  for name, array in cast.items():
    read = again.params[name].read()
    assert read.dtype == array.dtype
    assert read.tobytes() == array.tobytes(), name
  for leaf in again.open_state().values():
    assert leaf.read().tobytes() == cast[KERNEL].tobytes()


def test_casting_while_writing(flat, tmp_path):
  leaves = restore.leaves_of(tree.unflatten(flat))
  bfloat16 = np.dtype("bfloat16")
  t5x_writer.write_t5x(tmp_path / "c", leaves, dtype=bfloat16, state=leaves)
  again = restore.open_checkpoint(tmp_path / "c")
  read = again.params[KERNEL].read()
  np.testing.assert_array_equal(read, flat[KERNEL].astype(bfloat16))
  assert again.open_state()[KERNEL].dtype == np.float32  # only `target` is cast


def test_what_is_written_opens_the_way_t5x_opens_it(folder, flat):
  """T5X: drop chunks and compressor, join the path, ask TensorStore."""
  contents = serialization.msgpack_restore((folder / "checkpoint").read_bytes())
  assert contents["version"] == 3
  optimizer = contents["optimizer"]
  assert set(optimizer) == {"target", "state"}
  step = optimizer["state"]["step"]
  assert (step.shape, step.dtype, int(step)) == ((), np.int32, 7)
  seen = 0
  for name, array in flat.items():
    node = optimizer["target"]
    for part in name.split("/"):
      node = node[part]
    if isinstance(node, dict):
      spec = ts.Spec(node).to_json()
      del spec["metadata"]["chunks"], spec["metadata"]["compressor"]
      assert tuple(spec["metadata"]["shape"]) == array.shape
      path = spec["kvstore"]["path"]
      assert path.rstrip("/") == "target." + name.replace("/", ".")
      spec["kvstore"]["path"] = os.path.join(folder, path)
      node = ts.open(spec, open=True).result().read().result()
      zarray = json.loads((folder / path.rstrip("/") / ".zarray").read_text())
      assert zarray["compressor"] == {"id": "gzip", "level": 1}
      seen += 1
    np.testing.assert_array_equal(node, array)
  assert seen == sum(x.ndim == 2 for x in flat.values()) - 2  # relative biases


@given(
  st.lists(st.integers(1, 5000), min_size=1, max_size=3), st.integers(1, 10**5)
)
def test_chunks_divide_the_array_and_fit(shape, limit):
  chunk = t5x_writer.chunk_shape(shape, limit)
  assert all(size % c == 0 for size, c in zip(shape, chunk, strict=True))
  assert np.prod(chunk) <= limit
  if np.prod(shape) <= limit:
    assert chunk == shape


@pytest.mark.parametrize(
  ("shape", "limit", "chunk"),
  [
    # 64 MiB of float32, the XXL and base tables: halves, largest first.
    ((32_128, 4_096), 2**24, [4016, 4096]),
    ((32_128, 768), 2**24, [16_064, 768]),
    ((6, 35), 20, [3, 5]),
  ],
)
def test_chunks_are_t5xs(shape, limit, chunk):
  assert t5x_writer.chunk_shape(shape, limit) == chunk


def drop_metadata_dtype(spec):
  del spec["dtype"]
  spec["metadata"]["dtype"] = "<f4"
  return spec


def old_path(spec):
  spec["path"] = spec["kvstore"].pop("path")
  return spec


def gcs(spec):
  path = spec["kvstore"]["path"]
  bucket = "t5x-dummy-bucket"
  spec["kvstore"] = {"driver": "gcs", "bucket": bucket, "path": path}
  return spec


def with_path(change):
  def changed(spec):
    spec["kvstore"]["path"] = change(spec["kvstore"]["path"])
    return spec

  return changed


def url(spec):
  spec["kvstore"] = "file://" + spec["kvstore"]["path"]
  return spec


def gfile(spec):
  spec["kvstore"]["driver"] = "gfile"
  return spec


VARIANTS = {
  "as written": lambda spec: spec,
  "dtype inside metadata": drop_metadata_dtype,
  "path beside kvstore": old_path,
  "path beside kvstore, gcs": lambda spec: old_path(gcs(spec)),
  "gcs": gcs,
  "gfile": gfile,
  "trailing slash": with_path(lambda path: path + "/"),
  "absolute, from elsewhere": with_path(lambda path: "/gone/x/" + path + "/"),
  "below another folder": with_path(lambda path: "model/checkpoint_7/" + path),
  "a URL": url,
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_forms_of_the_spec(folder, flat, change):
  edit_spec(folder, change)
  leaf = restore.open_checkpoint(folder).params[KERNEL]
  np.testing.assert_array_equal(leaf.read(), flat[KERNEL])


def test_version_2_and_a_scalar_step(folder, flat):
  def older(contents):
    contents["version"] = 2
    contents["optimizer"]["state"]["step"] = np.int32(11)

  edit(folder, older)
  checkpoint = restore.open_checkpoint(folder)
  assert checkpoint.step == 11
  assert checkpoint.params.keys() == flat.keys()


@pytest.mark.parametrize("name", ["folder", "file", "bare file"])
def test_ways_to_name_it(checkpoints, tmp_path, name):
  path = checkpoints["t5x"]
  if name == "file":
    path = path / "checkpoint"
  elif name == "bare file":  # fully inline checkpoints may be one file
    path = checkpoints["t5x_inline"]
    assert path.is_file()
  assert restore.open_checkpoint(path).step == 7


def test_a_moved_checkpoint_still_opens(folder, flat, tmp_path):
  moved = folder.rename(tmp_path / "elsewhere")
  leaf = restore.open_checkpoint(moved).params[KERNEL]
  np.testing.assert_array_equal(leaf.read(), flat[KERNEL])


def test_untouched_parameters_have_no_state(folder):
  def partly(contents):
    states = {"a": None, "b": {}, "c": {"v": np.zeros(1, np.float32)}}
    contents["optimizer"]["state"]["param_states"] = states

  edit(folder, partly)
  assert list(restore.open_checkpoint(folder).open_state()) == [
    "param_states/c/v"
  ]


def test_damaged_state_leaves_the_model_usable(folder, tools):
  def broken(contents):
    spec = contents["optimizer"]["target"]["token_embedder"]["embedding"]
    contents["optimizer"]["state"]["param_states"] = {
      "a": {**spec, "kvstore": {"driver": "file", "path": "gone"}}
    }

  edit(folder, broken)
  checkpoint = restore.open_checkpoint(folder)
  restore.restore(checkpoint, tools.structs())
  with pytest.raises(CheckpointError, match="param_states/a"):
    checkpoint.open_state()


def with_key(key, value):
  def changed(spec):
    spec[key] = value
    return spec

  return changed


def with_metadata(key, value):
  def changed(spec):
    spec["metadata"][key] = value
    return spec

  return changed


BAD_SPECS = {
  "another driver": (with_key("driver", "n5"), "driver 'n5'"),
  "no path": (with_path(lambda _: ""), "with a path"),
  "out of the folder": (with_path(lambda path: "../" + path), "inside the"),
  "the folder itself": (with_path(lambda _: "."), "inside the"),
  "not there": (with_path(lambda _: "nowhere"), "does not exist"),
  "another shape": (with_metadata("shape", [8, 13]), r"\[8, 13\], as check"),
  "no shape": (with_metadata("shape", 3), "float323, as checkpoint says"),
  "another dtype": (with_key("dtype", "bfloat16"), "bfloat16.*as checkpoint"),
  "uint16": (with_key("dtype", "uint16"), "version 2 stored bfloat16 so"),
  "<u2": (drop_metadata_dtype, None),
  "a number": (lambda _: 3, r"query/kernel: expected float32\[8, 12\]"),
  "nothing": (lambda _: None, "expected an array; found None"),
  "text": (lambda _: "PLACEHOLDER://x", "expected an array; found 'PLACEH"),
}


@pytest.mark.parametrize("case", BAD_SPECS.values(), ids=BAD_SPECS)
def test_refused_specs(folder, tools, case):
  change, message = case
  if message is None:
    change = lambda spec: with_metadata("dtype", "<u2")(  # noqa: E731
      drop_metadata_dtype(spec)
    )
    message = "version 2 stored bfloat16 so"
  edit_spec(folder, change)
  with pytest.raises(CheckpointError, match=message) as caught:
    restore.restore(folder, tools.structs())
  assert [m.path for m in caught.value.mismatches] == [KERNEL]


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path):
  (folder / DOTTED).rename(tmp_path / "outside")
  (folder / DOTTED).symlink_to(tmp_path / "outside")
  with pytest.raises(CheckpointError, match="inside the checkpoint"):
    restore.open_checkpoint(folder)


def without(key):
  return lambda contents: contents.pop(key)


def with_version(version):
  return lambda contents: contents.update(version=version)


BAD_TREES = {
  "no version": (without("version"), "found version None"),
  "version 1": (with_version(1), "version 2 or 3; found version 1"),
  "a version that is none": (with_version("3"), "found version '3'"),
  "no optimizer": (without("optimizer"), "`version` and `optimizer`"),
  "no target": (lambda c: c["optimizer"].pop("target"), "under `target`"),
  "an empty target": (
    lambda c: c["optimizer"].update(target={}),
    "under `target`",
  ),
  "a step that is none": (
    lambda c: c["optimizer"]["state"].update(step=np.float32(1.5)),
    "state/step: expected a scalar that is a whole number",
  ),
}


@pytest.mark.parametrize("case", BAD_TREES.values(), ids=BAD_TREES)
def test_refused_trees(folder, case):
  change, message = case
  edit(folder, change)
  with pytest.raises(CheckpointError, match=message):
    restore.open_checkpoint(folder)


def test_mesh_tensorflow_is_named(tmp_path):
  (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"')
  with pytest.raises(CheckpointError, match="Mesh TensorFlow"):
    restore.open_checkpoint(tmp_path)


@pytest.mark.parametrize("what", ["missing", "truncated", "flipped", "empty"])
def test_damaged_chunks(folder, tools, what):
  """gzip carries a checksum, so that even one flipped bit is seen."""
  for name in (DOTTED, "target.token_embedder.embedding"):
    chunk = folder / name / "0.0"
    contents = bytearray(chunk.read_bytes())
    chunk.unlink()
    contents[len(contents) // 2] ^= 4
    if what != "missing":
      short = {"truncated": contents[:-9], "empty": b""}
      chunk.write_bytes(short.get(what, contents))
  with pytest.raises(CheckpointError) as caught:
    restore.restore(folder, tools.structs())
  damaged = [m.path for m in caught.value.mismatches]
  assert damaged == [KERNEL, "token_embedder/embedding"]


@pytest.mark.parametrize("chunks", [[8, 2**40], [2**33, 12]])
def test_absurd_chunks_are_refused_unread(folder, chunks):
  zarray = folder / DOTTED / ".zarray"
  metadata = json.loads(zarray.read_text())
  zarray.write_text(json.dumps({**metadata, "chunks": chunks}))
  with pytest.raises(CheckpointError, match=r"chunks of|[Cc]hunk"):
    restore.open_checkpoint(folder)


@pytest.mark.parametrize("shape", [(8, 8), (8, 12)])
def test_chunks_laid_out_by_column_are_refused(tools, tmp_path, shape):
  """TensorStore reads them; who changed `order` wants a transposed kernel."""
  tools.write_zarr(tmp_path, "a", np.ones(shape, np.float32))
  spec = {"a": stores.directory(str(tmp_path / "a"))}
  opened, broken = stores.open_leaves(spec)
  assert opened.keys() == {"a"}
  assert not broken
  zarray = tmp_path / "a" / ".zarray"
  metadata = json.loads(zarray.read_text())
  zarray.write_text(json.dumps({**metadata, "order": "F"}))
  opened, broken = stores.open_leaves(spec)
  assert not opened
  assert "order F" in broken[0].found


def test_damage_is_listed_with_what_does_not_fit(folder, flat, tools):
  shutil.rmtree(folder / DOTTED)

  def change(contents):
    target = contents["optimizer"]["target"]
    target["encoder"]["surplus"] = target["encoder"].pop("encoder_norm")

  edit(folder, change)
  with pytest.raises(CheckpointError, match="does not exist") as caught:
    restore.open_checkpoint(folder)
  assert [m.path for m in caught.value.mismatches] == [KERNEL]
  for source in (folder, restore.open_checkpoint(folder, whole=False)):
    with pytest.raises(CheckpointError) as caught:
      restore.restore(source, tools.structs())
    assert [m.path for m in caught.value.mismatches] == [
      "encoder/encoder_norm/scale",
      KERNEL,
      "encoder/surplus/scale",
    ]


class TestWriting:
  def test_does_not_overwrite(self, folder, flat):
    before = (folder / "checkpoint").read_bytes()
    leaves = restore.leaves_of(tree.unflatten(flat))
    with pytest.raises(CheckpointError, match="something already there"):
      t5x_writer.write_t5x(folder, leaves, step=8)
    assert (folder / "checkpoint").read_bytes() == before

  def test_overwrites_when_told(self, folder, flat):
    leaves = restore.leaves_of(tree.unflatten(flat))
    (folder / "stale").write_text("x")
    t5x_writer.write_t5x(folder, leaves, step=8, overwrite=True)
    assert restore.open_checkpoint(folder).step == 8
    assert not (folder / "stale").exists()
    assert os.listdir(folder.parent) == [folder.name]

  def test_a_failure_leaves_nothing_behind(self, folder, tmp_path):
    source = restore.open_checkpoint(folder)
    (folder / DOTTED / "0.0").unlink()
    target = tmp_path / "new" / "checkpoint_7"
    with pytest.raises(CheckpointError, match="query/kernel"):
      t5x_writer.write_t5x(target, source.params)
    assert os.listdir(target.parent) == []

  def test_a_failure_keeps_what_was_there(self, folder, checkpoints, tmp_path):
    target = shutil.copytree(checkpoints["t5x"], tmp_path / "kept")
    source = restore.open_checkpoint(folder)
    (folder / DOTTED / "0.0").unlink()
    with pytest.raises(CheckpointError):
      t5x_writer.write_t5x(target, source.params, overwrite=True)
    assert restore.open_checkpoint(target).params[KERNEL].read().any()

  def test_refuses_integers_and_odd_dtypes(self, tmp_path):
    leaves = restore.leaves_of({"a": np.ones((2, 2), np.int32)})
    with pytest.raises(CheckpointError, match="floating point"):
      t5x_writer.write_t5x(tmp_path / "c", leaves)
    leaves = restore.leaves_of({"a": np.ones((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match="float32 or bfloat16"):
      t5x_writer.write_t5x(tmp_path / "c", leaves, dtype=np.dtype("float16"))
    assert os.listdir(tmp_path) == []

  def test_large_inline_arrays_are_cut_up_as_flax_does(
    self, tmp_path, monkeypatch
  ):
    monkeypatch.setattr(t5x_writer, "_INLINE_LIMIT", 16)
    scale = np.arange(10, dtype=np.float32)
    leaves = restore.leaves_of({"norm": {"scale": scale}})
    t5x_writer.write_t5x(tmp_path / "c", leaves)
    contents = (tmp_path / "c" / "checkpoint").read_bytes()
    theirs = serialization.msgpack_restore(contents)
    read = theirs["optimizer"]["target"]["norm"]["scale"]
    np.testing.assert_array_equal(read, scale)
    ours = restore.open_checkpoint(tmp_path / "c").params["norm/scale"]
    np.testing.assert_array_equal(ours.read(), scale)
