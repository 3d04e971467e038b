"""The models and prompts that ship with the package."""

import pathlib

import pytest

from prompt_tuning.checkpoints import fingerprint, restore, sizes
from prompt_tuning.core import embedded
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.models.t5 import config

MEBIBYTE = 2**20


# Name -> its shape, and the steps that it was pre-trained for.
MODELS = {
  "ladder_1": ("ladder_1", 9_000),
  "ladder_1_span_corruption": ("ladder_1", 3_000),
  "ladder_2": ("ladder_2", 9_000),
  "tall_3": ("ladder_3", 18_000),
}


def test_all_are_known():
  assert embedded.names() == sorted(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_a_checkpoint_like_any_other(name):
  path = embedded.SCHEME + name
  size, step = MODELS[name]
  checkpoint = restore.open_checkpoint(path)
  assert checkpoint.format == "t5x"
  assert checkpoint.step == step
  found = sizes.infer_config(checkpoint)
  assert sizes.described(found) == sizes.described(config.get(size))
  vocabulary = vocabularies.load(path)
  assert vocabulary.size == found.vocab_size == 4_096
  of_weights = fingerprint.of_leaves(checkpoint.params)
  assert embedded.with_fingerprint(of_weights) == path


def test_the_default_is_small():
  assert embedded.DEFAULT == "embedded:ladder_1"
  folder = pathlib.Path(embedded.checkpoint(embedded.DEFAULT)).parent
  files = [path for path in folder.rglob("*") if path.is_file()]
  assert sum(path.stat().st_size for path in files) < 8 * MEBIBYTE


def test_other_paths_are_left_alone(tmp_path):
  assert embedded.checkpoint(tmp_path) == str(tmp_path)
  assert embedded.vocabulary("a/sentencepiece.model") == "a/sentencepiece.model"


@pytest.mark.parametrize("resolve", [embedded.checkpoint, embedded.vocabulary])
def test_an_unknown_model_names_the_nearest(resolve):
  with pytest.raises(ValueError, match="Did you mean 'ladder_1'"):
    resolve("embedded:lader_1")


def test_a_prompt_is_found_by_name_and_other_paths_are_left_alone(tmp_path):
  folder = pathlib.Path(embedded.prompt("embedded:prompts/opposite"))
  assert sorted(path.name for path in folder.iterdir()) == [
    *("README.md", "delta.json", "delta.safetensors")
  ]
  assert embedded.prompt(tmp_path / "a.npy") == str(tmp_path / "a.npy")
  assert "prompts" not in embedded.names()


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("embedded:prompts/opposites", "Did you mean 'opposite'"),
    ("embedded:opposite", "did you mean embedded:prompts/opposite"),
    ("embedded:ladder_1", "No prompt 'embedded:ladder_1'"),
    ("embedded:prompts/../ladder_1", "No prompt"),
    ("embedded:prompts/", "No prompt"),
  ],
)
def test_a_prompt_that_is_not_there_names_the_nearest(name, message):
  with pytest.raises(ValueError, match=message):
    embedded.prompt(name)


def test_a_prompt_is_no_model():
  with pytest.raises(ValueError, match="is a prompt; expected a model"):
    embedded.checkpoint("embedded:prompts/opposite")
