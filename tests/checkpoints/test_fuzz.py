"""Damaged files of every format: a clean error, or a correct load.

What "correct" can mean depends on the format. gzip (T5X's own chunks) has a
checksum, so a load that succeeds has every value right. Numbers that lie bare
in a file (msgpack, safetensors) or in a zstd frame without a checksum (Orbax)
may have a flipped bit that nobody can see; then the load is what the file now
says, with the right names, shapes and dtypes.
"""

import dataclasses
import json
import pathlib
import resource
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.checkpoints import prompts, restore
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import tree

_GROWTH = 256 * 2**20  # bytes; the tiny model has 4 kB


@pytest.fixture(scope="module")
def small(tools):
  return dataclasses.replace(
    tools.config, num_encoder_layers=1, num_decoder_layers=1
  )


@pytest.fixture(scope="module")
def values(tools, small):
  return tools.random_params(small)


@pytest.fixture(scope="module")
def target(tools, small):
  return tools.structs(small)


@pytest.fixture(scope="module")
def originals(tools, small, values, tmp_path_factory):
  folder = tmp_path_factory.mktemp("originals")
  return {k: tools.write(folder, k, values, small) for k in tools.formats}


def copied(original, folder):
  """Copy a checkpoint that is a folder or a file."""
  if original.is_dir():
    return pathlib.Path(shutil.copytree(original, folder / original.name))
  return pathlib.Path(shutil.copy(original, folder))


def files(path):
  if path.is_file():
    return [path]
  return sorted(p for p in path.rglob("*") if p.is_file())


@st.composite
def damages(draw):
  """A change to the contents of a file; None removes it."""
  kind = draw(st.sampled_from(("cut", "flip", "write", "add", "gone", "zero")))
  where = draw(st.floats(0, 1, exclude_max=True))
  bit, noise = draw(st.integers(0, 7)), draw(st.binary(max_size=40))

  def change(contents):
    at = int(where * len(contents))
    if kind == "gone":
      return None
    if kind == "flip" and contents:
      flipped = bytes([contents[at] ^ 1 << bit])
      return contents[:at] + flipped + contents[at + 1 :]
    return {
      "cut": contents[:at],
      "write": contents[:at] + noise + contents[at + len(noise) :],
      "add": contents + noise,
      "zero": contents[:at] + bytes(len(contents) - at),
    }.get(kind, contents)

  return change


def outcome(path, target):
  """Restore; None for a clean error, else the parameters, checked."""
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  try:
    params = restore.restore(path, target)
  except CheckpointError:
    params = None
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert grown * 1024 < _GROWTH
  if params is None:
    return None
  expected = tree.flatten(target)
  flat = tree.flatten(params)
  assert flat.keys() == expected.keys()
  for name, array in flat.items():
    assert array.shape == expected[name].shape
    assert array.dtype == expected[name].dtype
  return jax.tree.map(np.asarray, flat)


def checksummed(file):
  return file.name[0].isdigit() and file.parent.name.startswith("target.")


@pytest.mark.parametrize(
  "kind", ["t5x", "t5x_inline", "orbax", "orbax_folders", "hf"]
)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files(originals, values, target, tmp_path_factory, kind, data):
  path = copied(originals[kind], tmp_path_factory.mktemp("fuzz"))
  for _ in range(data.draw(st.integers(1, 2))):
    file = data.draw(st.sampled_from(files(path)))
    contents = data.draw(damages())(file.read_bytes())
    if contents is None:
      file.unlink()
      break
    file.write_bytes(contents)
  loaded = outcome(path, target)
  if loaded is not None and kind == "t5x" and checksummed(file):
    for name, array in values.items():
      np.testing.assert_array_equal(loaded[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ["t5x", "orbax", "orbax_folders", "hf"])
@settings(max_examples=20)
@given(data=st.data())
def test_files_of_the_wrong_type(
  originals, tools, target, tmp_path_factory, kind, data
):
  """One file's contents under another's name; a folder instead of a file."""
  path = copied(originals[kind], tmp_path_factory.mktemp("fuzz"))
  file = data.draw(st.sampled_from(files(path)))
  other_kind = data.draw(st.sampled_from(tools.formats))
  other = data.draw(st.sampled_from(files(originals[other_kind])))
  if data.draw(st.booleans()):
    file.write_bytes(other.read_bytes())
  else:
    file.unlink()
    file.mkdir()
  outcome(path, target)


json_values = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**70), 2**70)
  | st.floats()
  | st.sampled_from(
    ("", "..", "<f4", "<u2", "|O", "bfloat16", "shared.weight")
  ),
  lambda children: (
    st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=4), children, max_size=3)
  ),
  max_leaves=5,
)


@pytest.mark.parametrize(
  ("kind", "pattern"),
  [
    ("t5x", "**/.zarray"),
    ("orbax_folders", "**/.zarray"),
    ("orbax", "**/_METADATA"),
    ("hf", "config.json"),
  ],
)
@settings(max_examples=60)
@given(data=st.data())
def test_json_of_the_wrong_shape(
  originals, target, tmp_path_factory, kind, pattern, data
):
  path = copied(originals[kind], tmp_path_factory.mktemp("fuzz"))
  file = data.draw(st.sampled_from(sorted(path.glob(pattern))))
  node = contents = json.loads(file.read_text())
  while True:
    keys = sorted(node) if isinstance(node, dict) else range(len(node))
    key = data.draw(st.sampled_from(keys))
    deeper = isinstance(node[key], dict | list) and node[key]
    if not deeper or data.draw(st.booleans()):
      break
    node = node[key]
  node[key] = data.draw(json_values)
  file.write_text(json.dumps(contents))
  outcome(path, target)


@settings(max_examples=100)
@given(contents=st.binary(max_size=200), suffix=st.sampled_from(("", ".npy")))
def test_noise(target, tmp_path_factory, contents, suffix):
  """Random bytes under every name that a reader looks for."""
  folder = tmp_path_factory.mktemp("noise")
  names = ("checkpoint", "_METADATA", "model.safetensors", "config.json")
  for name in (*names, "adapter_config.json", "adapter_model.safetensors"):
    path = folder / name
    path.write_bytes(contents)
    for tried in (folder, path):
      assert outcome(tried, target) is None
      with pytest.raises(CheckpointError):
        restore.open_prompt(tried)
    path.unlink()
  file = folder / f"p{suffix}"
  file.write_bytes(prompts.MAGIC + contents)
  with pytest.raises(CheckpointError):
    restore.open_prompt(file)
