"""Prompts moved to another model: against numpy, and by command."""

import numpy as np
import pytest

from prompt_tuning.checkpoints.vocabulary_mark import VocabularyMark
from prompt_tuning.core import embedded
from prompt_tuning.data import vocabulary
from prompt_tuning.jobs import load, recycle
from prompt_tuning.launch import main

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(120, 8)).astype("f4")
MATRIX = RNG.normal(size=(8, 6)).astype("f4")
PROMPT = RNG.normal(size=(3, 8)).astype("f4")


def test_a_linear_map_between_models_is_found(tolerance):
  made = recycle.recycle(PROMPT, SOURCE, SOURCE @ MATRIX)
  np.testing.assert_allclose(
    made.vectors, PROMPT @ MATRIX, **tolerance["oracle"]
  )
  assert (made.words, made.vectors.dtype) == (120, np.float32)
  assert made.error < 1e-5


def test_it_is_the_originals_linear_combination_of_words(tolerance):
  """Weights of words that make the prompt, put on the other model's words."""
  target = RNG.normal(size=(120, 6)).astype("f4")  # no map fits these
  weights, *_ = np.linalg.lstsq(SOURCE.T.astype("f8"), PROMPT.T.astype("f8"))
  made = recycle.recycle(PROMPT, SOURCE, target)
  np.testing.assert_allclose(
    made.vectors, weights.T @ target, **tolerance["oracle"]
  )
  assert 0.8 < made.error < 1


def test_a_network_learns_some_of_what_a_matrix_cannot():
  target = np.abs(SOURCE @ MATRIX)
  first, again = (
    recycle.recycle(PROMPT, np.tile(SOURCE, (8, 1)), np.tile(target, (8, 1)),
                    "mlp")
    for _ in range(2)
  )  # fmt: skip
  assert first.error < recycle.recycle(PROMPT, SOURCE, target).error
  np.testing.assert_array_equal(first.vectors, again.vectors)


def test_words_are_those_of_both_models():
  ours = ["<pad>", "▁the", "▁of", "ing", "▁cat", "▁été", "▁dog", "▁ox"]
  theirs = {"▁dog": 3, "▁of": 1, "▁cat": 7, "▁the": 2}
  assert recycle.shared_words(ours, theirs, count=2, skip=1) == [(2, 1), (4, 7)]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((PROMPT[:, :5], SOURCE, SOURCE), "Set --source to the model"),
    ((PROMPT, SOURCE[:7], SOURCE[:7]), "7 words are too few to fit a map of 8"),
    ((PROMPT, SOURCE, SOURCE, "magic"), "expected linear or mlp"),
  ],
)
def test_what_does_not_fit(arguments, message):
  with pytest.raises(ValueError, match=message):
    recycle.recycle(*arguments)


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ("--words=0", "--words is 0; expected a whole number, 1 or more"),
    ("--skip=-1", "--skip is -1; expected a whole number, 0 or more"),
  ],
)
def test_numbers_of_words_that_cannot_be(setting, message, capsys):
  argv = ["recycle", "a.npy", "b.npy", "--source=c", "--target=d", setting]
  assert main.main(argv) == 2
  assert message in capsys.readouterr().err


def test_between_the_embedded_models(tmp_path, capsys):
  np.save(tmp_path / "a.npy", RNG.normal(size=(4, 96)).astype("f4"))
  out = tmp_path / "b.npy"
  argv = ["recycle", str(tmp_path / "a.npy"), str(out)]
  argv += ["--source", embedded.DEFAULT, "--target", "embedded:ladder_2"]
  argv += ["--vocabulary", embedded.DEFAULT]
  assert main.main(argv) == 0
  assert np.load(out).shape == (4, 128)
  assert "4 vectors of 128 features" in capsys.readouterr().out
  assert main.main(argv) == 2  # it is there
  assert main.main([*argv, "--overwrite", "--skip=9999"]) == 2
  assert "No words are left" in capsys.readouterr().err


def test_a_prompt_of_another_model_of_its_width_is_an_error(tmp_path, capsys):
  argv = ["recycle", "embedded:prompts/opposite", str(tmp_path / "b.npy")]
  argv += ["--target", "embedded:ladder_2", "--vocabulary", embedded.DEFAULT]
  other = "embedded:ladder_1_span_corruption"
  assert main.main([*argv, "--source", other]) == 2
  assert "other weights" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
  assert main.main([*argv, "--source", embedded.DEFAULT]) == 0


def test_a_vocabulary_of_another_model_is_an_error():
  with pytest.raises(ValueError, match=r"4096 rows\. Set --vocabulary to"):
    recycle._rows(embedded.DEFAULT, np.array([5, 4096]), "--vocabulary")


def test_a_prompt_of_another_vocabulary_is_an_error(monkeypatch):
  theirs = VocabularyMark("0" * 64)
  tuned = load.PLAIN._replace(vocabulary=theirs)
  monkeypatch.setattr(load, "_best_of_a_task", lambda path: tuned)
  words = vocabulary.load(embedded.DEFAULT)
  with pytest.raises(ValueError, match=r"^a was trained with the"):
    load.encoder_vectors("a", words)


def test_few_words_suffice_a_network():
  made = recycle.recycle(PROMPT, SOURCE[:20], SOURCE[:20], "mlp")
  assert np.isfinite(made.vectors).all()
