"""The front door: what it takes for ours, and paths as users write them."""

import pathlib
import shutil

import numpy as np
import pytest

from prompt_tuning.checkpoints import peft, prompts, restore
from prompt_tuning.checkpoints.errors import CheckpointError

VALUES = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


@pytest.fixture
def prompt(tmp_path):
  prompts.write_npy(tmp_path / "p.npy", VALUES)
  return tmp_path / "p.npy"


def test_models_are_ours_even_with_damaged_arrays(checkpoint, tmp_path):
  path = tmp_path / "copy"
  copy = shutil.copytree if checkpoint.is_dir() else shutil.copy
  copy(checkpoint, path)
  assert restore.is_ours(path)
  for chunk in (*path.glob("**/0.0"), *path.glob("model.safetensors")):
    chunk.write_bytes(b"")
  assert restore.is_ours(path)


def test_prompts_are_ours(prompt, tmp_path):
  peft.write_vectors(tmp_path / "adapter", VALUES)
  (tmp_path / "folder").mkdir()
  shutil.copy(prompt, tmp_path / "folder" / prompts.FILE_NAME)
  for path in (prompt, tmp_path / "adapter", tmp_path / "folder"):
    assert restore.is_ours(path), path
  (tmp_path / "folder" / "thesis.tex").write_text("years of work")
  assert not restore.is_ours(tmp_path / "folder")


@pytest.mark.parametrize(
  "name",
  [
    "thesis.tex",
    "checkpoint",
    "state",
    "model.safetensors",
    "config.json",
    "adapter_config.json",
    "trainable.safetensors",
  ],
)
def test_a_name_alone_makes_nothing_ours(tmp_path, name):
  (tmp_path / name).write_text("years of work")
  assert not restore.is_ours(tmp_path)
  assert not restore.is_ours(tmp_path / name)


@pytest.mark.parametrize("spelling", ["./{}", "{}/", "../{1}/{0}", ".//{}"])
@pytest.mark.parametrize("kind", ["npy", "peft", "folder"])
def test_prompts_as_users_write_them(
  kind, spelling, prompt, tmp_path, monkeypatch
):
  name = {"npy": "p.npy", "peft": "adapter", "folder": "folder"}[kind]
  peft.write_vectors(tmp_path / "adapter", VALUES)
  (tmp_path / "folder").mkdir()
  shutil.copy(prompt, tmp_path / "folder")
  monkeypatch.chdir(tmp_path)
  path = spelling.format(name, pathlib.Path(tmp_path).name)
  assert restore.holds_prompt(path)
  np.testing.assert_array_equal(restore.open_prompt(path).values, VALUES)


@pytest.mark.parametrize(
  "opened", [restore.open_prompt, restore.open_checkpoint]
)
def test_urls_are_refused_as_such(opened):
  with pytest.raises(CheckpointError, match="Copy the folder here first"):
    opened("hdfs://name/checkpoint_1")
