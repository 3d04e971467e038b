"""Words of another vocabulary are no input for what was trained with one."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from sentencepiece import sentencepiece_model_pb2 as pb2

from prompt_tuning import api
from prompt_tuning.checkpoints import bundle, vocabulary_mark
from prompt_tuning.checkpoints.vocabulary_mark import VocabularyMark
from prompt_tuning.core import embedded
from prompt_tuning.data import vocabulary
from prompt_tuning.jobs import inspect, load, same_vocabulary
from prompt_tuning.jobs.export import Origin
from prompt_tuning.jobs.tuning_result import Trained
from prompt_tuning.launch import main

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "before_methods"


@pytest.fixture(scope="module")
def words(vocabulary_file):
  return vocabulary.load(vocabulary_file)


@pytest.fixture(scope="module")
def other(other_vocabulary_file):
  return vocabulary.load(str(other_vocabulary_file))


@pytest.fixture
def same(vocabulary_file, tmp_path):
  """Other bytes, the same ids: who trained it has written less of how."""
  model = pb2.ModelProto.FromString(pathlib.Path(vocabulary_file).read_bytes())
  del model.trainer_spec.input[:]
  model.trainer_spec.input_sentence_size = 7
  path = tmp_path / "same.model"
  path.write_bytes(model.SerializeToString())
  return vocabulary.load(str(path))


def test_only_what_decides_ids_counts(words, same, other):
  mark = same_vocabulary.mark(words)
  assert mark.file == "embedded:ladder_1"
  assert mark.sha256 != same.sha256
  for ours in (words, same):
    same_vocabulary.insist(mark, ours, "a prompt")
  same_vocabulary.insist(None, other, "a prompt")  # that does not say
  with pytest.raises(ValueError, match=r"^a prompt was trained with") as e:
    same_vocabulary.insist(mark, other, "a prompt")
  for word in (mark.file, other.path, "4,096 ids", "Set VOCABULARY_FILE"):
    assert word in str(e.value)


@pytest.mark.parametrize("change", ["model_type", "suffix", "normaliser"])
def test_how_text_is_cut_decides_too(vocabulary_file, words, change, tmp_path):
  model = pb2.ModelProto.FromString(pathlib.Path(vocabulary_file).read_bytes())
  if change == "model_type":
    model.trainer_spec.model_type = pb2.TrainerSpec.WORD
  elif change == "suffix":
    model.trainer_spec.treat_whitespace_as_suffix = True
  else:
    model.normalizer_spec.remove_extra_whitespaces = False
  path = tmp_path / "other.model"
  path.write_bytes(model.SerializeToString())
  assert vocabulary.load(str(path)).ids_sha256 != words.ids_sha256


def test_runs_of_older_versions_say_a_hash_only(words, other):
  tuned = load.load(GOLDEN / "before_text")
  assert tuned.vocabulary == VocabularyMark(words.sha256)
  with pytest.raises(ValueError, match=r"a file that is not named \(sha256"):
    same_vocabulary.insist(tuned.vocabulary, other, "it")


def test_bundles_and_their_exports_say_it(words, tmp_path):
  (step,) = bundle.steps(GOLDEN / "before_text" / "best" / "run_0")
  path = bundle.step_path(GOLDEN / "before_text" / "best" / "run_0", step)
  mark = same_vocabulary.mark(words)
  saved = bundle.read(path)
  manifest = {**saved.manifest, vocabulary_mark.KEY: mark.described}
  bundle.write(tmp_path / "b", bundle.Bundle(manifest, saved.trainable))
  argv = ["export", str(tmp_path / "b"), str(tmp_path / "export")]
  assert main.main(argv) == 0
  for folder in (tmp_path / "b", tmp_path / "export" / "seed0"):
    assert load.load(folder).vocabulary == mark
    about = inspect.report(str(folder))["about"]
    assert about["vocabulary"].startswith("'embedded:ladder_1' (4,096 ids,")


def test_what_a_resumed_run_says(words, other, tmp_path):
  mark = same_vocabulary.mark(words)
  text = same_vocabulary.change(mark.described, other)
  assert f"the bundle has {mark}, VOCABULARY_FILE is '{other.path}'" in text
  text = same_vocabulary.change(None, other)
  assert other.path in text
  copy = shutil.copy(words.path, tmp_path / "copy.model")
  before = same_vocabulary.mark(vocabulary.Vocabulary(str(copy)))
  shutil.copy(other.path, copy)
  after = vocabulary.Vocabulary(str(copy))
  text = same_vocabulary.change(before.described, after)
  assert text == f"{copy} has changed since the bundle was written"


@pytest.mark.parametrize(
  ("model", "file"),
  [
    ("t5-small", "t5-small/spiece.model"),
    ("t5/checkpoint_7", "t5/sentencepiece.model"),
    ("t5/stage/huggingface", "t5/sentencepiece.model"),
    ("t5/stage/checkpoint_7", "t5/sentencepiece.model"),
  ],
)
def test_a_vocabulary_beside_the_model(model, file, words, other, tmp_path):
  (tmp_path / model).mkdir(parents=True)
  if "stage" in model:
    (tmp_path / "t5" / "stage" / "stage.json").write_text("{}")
  assert same_vocabulary.beside(tmp_path / model, words) is None
  shutil.copy(other.path, tmp_path / file)
  same_vocabulary.insist_of_model(tmp_path / model, other)
  with pytest.raises(ValueError, match=r"^The model .* was trained with") as e:
    same_vocabulary.insist_of_model(tmp_path / model, words)
  assert str(tmp_path / file) in str(e.value)


def test_what_no_t5_has_beside_a_model_says_nothing(words, tmp_path):
  (tmp_path / "spiece.model").write_text("what T5 does not have")
  same_vocabulary.insist_of_model(tmp_path, words)


def test_a_notebook(words, other):
  with pytest.raises(ValueError, match=r"embedded:ladder_1 was trained with"):
    api.load_model(vocabulary_path=other.path)
  model = api.load_model(batch_size=1)
  assert model.predictor.vocabulary.path == embedded.vocabulary(
    embedded.DEFAULT
  )
  width = model.backbone.config.emb_dim
  runs = api.from_vectors(np.ones((2, width), np.float32))
  for origin, message in (
    (Origin(vocabulary=same_vocabulary.mark(other)), "the vocabulary"),
    (Origin(backbone="another"), "the backbone another"),
  ):
    trained = Trained({"a": runs}, {"a": origin}, {}, {"a": 0}, {}, "finished")
    with pytest.raises(ValueError, match=message):
      model.with_tuned({"mine": trained})


def test_a_manifest_of_a_later_version(words):
  mark = same_vocabulary.mark(words)
  later = {**json.loads(json.dumps(mark.described)), "colour": "red"}
  assert VocabularyMark.of_manifest(later) == mark
