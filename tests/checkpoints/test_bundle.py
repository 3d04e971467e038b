"""Bundles: exact, deterministic, atomic, and never trusted blindly."""

import json
import os
import pathlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.checkpoints import bundle
from prompt_tuning.checkpoints.errors import CheckpointError
from tests.failing_files import Disk, full_disk


def make(seed=0):
  rng = np.random.default_rng(seed)
  return bundle.Bundle(
    manifest={
      "run": {"method": "prompt"},
      "step": seed,
      "metrics": {"accuracy": 91.5},
    },
    trainable={
      "tuner/encoder/prompt": rng.normal(size=(2, 5, 4)).astype(np.float32),
      "tuner/low": rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
    },
    resume={
      "step": np.asarray(7, np.int32),
      "optimizer/0/v": rng.normal(size=(2, 5, 4)).astype(np.float32),
      "empty": np.zeros((0, 3), np.float32),
    },
  )


def assert_same(ours, theirs):
  for part in ("trainable", "resume"):
    a, b = getattr(ours, part), getattr(theirs, part)
    assert a.keys() == b.keys()
    for name in a:
      assert a[name].dtype == b[name].dtype
      assert a[name].shape == b[name].shape
      assert a[name].tobytes() == b[name].tobytes()


def contents(folder):
  return {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir()}


def test_round_trip_is_exact(tmp_path):
  bundle.write(tmp_path / "b", make())
  read = bundle.read(tmp_path / "b")
  assert_same(read, make())
  assert read.manifest["metrics"] == {"accuracy": 91.5}
  assert bundle.looks_like_one(tmp_path / "b")


def test_equal_state_gives_equal_bytes(tmp_path):
  bundle.write(tmp_path / "a", make())
  bundle.write(tmp_path / "b", make())
  assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_without_resume_state(tmp_path):
  part = bundle.Bundle({"run": {}, "step": 1}, make().trainable)
  bundle.write(tmp_path / "b", part)
  assert sorted(contents(tmp_path / "b")) == [
    "manifest.json",
    "trainable.safetensors",
  ]
  assert not bundle.read(tmp_path / "b").resume


def test_overwriting_leaves_one_whole_bundle(tmp_path):
  bundle.write(tmp_path / "b", make(0))
  bundle.write(tmp_path / "b", make(1))
  assert_same(bundle.read(tmp_path / "b"), make(1))
  assert os.listdir(tmp_path) == ["b"]


def test_a_failing_write_keeps_the_old_bundle(tmp_path, monkeypatch):
  """As when no space is left on the device."""
  bundle.write(tmp_path / "b", make(0))
  Disk(monkeypatch, lambda _, name, path: name == "_flush" and full_disk())
  with pytest.raises(CheckpointError, match="No space left"):
    bundle.write(tmp_path / "b", make(1))
  assert_same(bundle.read(tmp_path / "b"), make(0))
  assert os.listdir(tmp_path) == ["b"]


def test_the_newest_whole_bundle_is_read(tmp_path, caplog):
  for step in (3, 10, 20):
    bundle.write(bundle.step_path(tmp_path, step), make(step))
  damaged = bundle.step_path(tmp_path, 20) / "resume.safetensors"
  damaged.write_bytes(damaged.read_bytes()[:-1])
  step, found = bundle.read_latest(tmp_path)
  assert step == 10
  assert_same(found, make(10))
  assert "resume.safetensors" in caplog.text


def test_nothing_to_read(tmp_path):
  assert bundle.read_latest(tmp_path / "absent") is None
  assert bundle.read_latest(tmp_path) is None


def test_a_manifest_is_read_without_its_arrays(tmp_path):
  assert bundle.latest_manifest(tmp_path) is None
  for step in (1, 2, 3):
    bundle.write(bundle.step_path(tmp_path, step), make(step))
  newest, older = (bundle.step_path(tmp_path, step) for step in (3, 2))
  (newest / "manifest.json").write_text("{")
  (older / "trainable.safetensors").unlink()
  found = bundle.latest_manifest(tmp_path)
  assert found["metrics"] == {"accuracy": 91.5}
  for step in (1, 2):
    (bundle.step_path(tmp_path, step) / "manifest.json").unlink()
  assert bundle.latest_manifest(tmp_path) is None


def test_only_damaged_bundles_is_an_error(tmp_path):
  bundle.write(bundle.step_path(tmp_path, 1), make())
  (bundle.step_path(tmp_path, 1) / "trainable.safetensors").unlink()
  with pytest.raises(CheckpointError, match="damaged"):
    bundle.read_latest(tmp_path)


def test_keep_only_also_clears_what_a_kill_left(tmp_path):
  for step in (1, 2, 3):
    bundle.write(bundle.step_path(tmp_path, step), make())
  (tmp_path / "step_00000004.tmp-deadbeef").mkdir()
  bundle.keep_only(tmp_path, [2, 3])
  assert sorted(os.listdir(tmp_path)) == ["step_00000002", "step_00000003"]
  assert bundle.steps(tmp_path) == [2, 3]


@pytest.mark.parametrize(
  "change",
  [
    {"format": "other"},
    {"version": 99},
    {"files": {"../../secret": "0"}},
    {"files": None},
  ],
)
def test_foreign_manifests_are_refused(change, tmp_path):
  bundle.write(tmp_path / "b", make())
  path = tmp_path / "b" / "manifest.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(CheckpointError):
    bundle.read(tmp_path / "b")


@given(
  name=st.sampled_from(
    ["manifest.json", "trainable.safetensors", "resume.safetensors"]
  ),
  place=st.floats(0, 1, exclude_max=True),
  bit=st.integers(0, 7),
  truncate=st.booleans(),
)
def test_damage_is_an_error_or_harmless(
  tmp_path_factory, name, place, bit, truncate
):
  folder = tmp_path_factory.mktemp("fuzz") / "b"
  bundle.write(folder, make())
  path = folder / name
  data = bytearray(path.read_bytes())
  index = int(place * len(data))
  if truncate:
    data = data[:index]
  else:
    data[index] ^= 1 << bit
  path.write_bytes(bytes(data))
  try:
    read = bundle.read(folder)
  except CheckpointError:
    return
  # White space and escapes in the manifest may change without meaning.
  assert name == "manifest.json"
  assert_same(read, make())
  assert read.manifest["metrics"] == {"accuracy": 91.5}


@pytest.mark.parametrize("name", ["manifest.json", "trainable.safetensors"])
def test_a_damaged_bundle_may_be_replaced(tmp_path, name):
  bundle.write(tmp_path / "b", make(0))
  (tmp_path / "b" / name).unlink()
  bundle.write(tmp_path / "b", make(1))
  assert_same(bundle.read(tmp_path / "b"), make(1))


def test_nothing_else_is_replaced(tmp_path):
  (tmp_path / "b").mkdir()
  for name in ("thesis.tex", "manifest.json"):
    (tmp_path / "b" / name).write_text("years of work")
    with pytest.raises(CheckpointError, match="delete it yourself"):
      bundle.write(tmp_path / "b", make())
  assert (tmp_path / "b" / "thesis.tex").read_text() == "years of work"
