"""Exports on disk: they come back to the bit, or say what is wrong."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.checkpoints.delta import SavedDelta
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import algebra
from prompt_tuning.core.delta import Delta, LowRank, Prefix
from prompt_tuning.core.placement import Placement

VALUES = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype("f4")
SAVED = SavedDelta(
  Delta(
    virtual=jnp.asarray(VALUES[:, 0]),
    lowrank={"enc_self/query": LowRank(VALUES, VALUES.swapaxes(2, 3))},
    prefix={
      "cross": Prefix(VALUES[..., None], VALUES[..., None]),
      "enc_self": Prefix(
        VALUES[..., None],
        VALUES[..., None],
        positioned=np.asarray([[True, False]]),
      ),
    },
  ),
  Placement(encoder_prefix=(0, 2), decoder_prefix=(1,)),
  {"title": "a method", "step": 7},
)


@pytest.fixture
def folder(tmp_path):
  deltas.write(tmp_path / "delta", SAVED)
  return tmp_path / "delta"


def test_a_delta_comes_back_to_the_bit(folder):
  again = deltas.read(folder)
  assert again.placement == SAVED.placement
  assert again.about == SAVED.about
  ours, theirs = map(algebra.named_leaves, (SAVED.delta, again.delta))
  assert ours.keys() == theirs.keys()
  for name, array in ours.items():
    np.testing.assert_array_equal(theirs[name], array)
    assert theirs[name].dtype == array.dtype
  assert "- method: a method" in (folder / "README.md").read_text()


def test_equal_deltas_have_equal_bytes(folder, tmp_path):
  deltas.write(tmp_path / "again", SAVED)
  for path in folder.iterdir():
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_flipped_bit_is_found(folder):
  path = folder / "delta.safetensors"
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  with pytest.raises(CheckpointError, match="damaged"):
    deltas.read(folder)


def test_lost_arrays_are_named(folder):
  (folder / "delta.safetensors").unlink()
  with pytest.raises(CheckpointError, match=r"delta\.safetensors"):
    deltas.read(folder)


@pytest.mark.parametrize(
  "changes",
  [
    {"format": "another"},
    {"version": 2},
    {"about": ["list"]},
    {"placement": None},
    {"placement": {"elsewhere": [0]}},
    {"placement": {"encoder_prefix": ["x"]}},
    {"sha256": None},
  ],
)
def test_a_manifest_of_something_else_is_an_error(folder, changes):
  path = folder / "delta.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(CheckpointError):
    deltas.read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_manifest_is_an_error(folder, text):
  (folder / "delta.json").write_text(text)
  assert not deltas.is_delta(folder)
  with pytest.raises(CheckpointError):
    deltas.read(folder)


def test_nothing_else_is_replaced(tmp_path):
  (tmp_path / "delta").mkdir()
  (tmp_path / "delta" / "mine.txt").write_text("mine")
  with pytest.raises(CheckpointError, match=r"mine\.txt"):
    deltas.write(tmp_path / "delta", SAVED)
  assert (tmp_path / "delta" / "mine.txt").read_text() == "mine"


def test_an_empty_delta_is_not_written(tmp_path):
  with pytest.raises(CheckpointError, match="changes nothing"):
    deltas.write(tmp_path / "delta", SavedDelta(Delta(), Placement(), {}))
