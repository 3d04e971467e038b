"""The classes of tasks, and the words by which they are scored."""

import dataclasses

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import mixtures, spec, templated
from prompt_tuning.jobs import classes, identity, recipes
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.jobs.train_job import Experiment, TrainingStage
from prompt_tuning.models.scorers import OutputRows, WholeWords
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.objectives import CrossEntropy
from prompt_tuning.tuners.ia3 import IA3
from prompt_tuning.tuners.warp import Warp

SST2, RTE = "taskless_glue_sst2_v200", "taskless_glue_rte_v200"


def encode(text):
  """A piece per letter."""
  return [ord(letter) for letter in text]


def test_by_default_a_task_has_its_own_words():
  table = classes.of_task(SST2, None, encode)
  assert table.names == ("negative", "positive")
  np.testing.assert_array_equal(
    table.targets, [[*encode(name), 1] for name in table.names]
  )
  np.testing.assert_array_equal(table.words.pieces[:, 0], table.targets[:, :-1])


@pytest.mark.parametrize(
  "given", [["bad", "good"], {"positive": "good", "negative": ["bad", "awful"]}]
)
def test_other_words_go_by_the_classes_of_the_task(given):
  table = classes.of_task(SST2, given, encode)
  assert table.names == ("negative", "positive")
  assert table.words.pieces[0, 0].tolist()[:3] == encode("bad")
  assert table.words.pieces[1, 0].tolist()[:4] == encode("good")


def test_words_may_come_from_a_file(tmp_path):
  path = tmp_path / "words.txt"
  path.write_text("bad,awful\ngood\n")
  table = classes.of_task(SST2, str(path), encode)
  assert table.words.lengths.tolist() == [[3, 5], [4, 0]]


def test_a_file_of_words_is_known_by_what_it_says(tmp_path):
  """In training, in a stage, and in evaluation; others are as they were."""
  path = tmp_path / "words.txt"
  path.write_text("bad\ngood\n")
  words = Classes(label_words=str(path))
  plain = Experiment(
    t5_config.get("t5_1_1_tiny"),
    Dataset(SST2),
    objective=CrossEntropy(),
    learning_rates=(0.1,),
  )
  stage = TrainingStage("first", 1, (), objective=words)
  evaluation = EvaluationSettings(Dataset(SST2), label_words=str(path))
  jobs = [
    (dataclasses.replace(plain, objective=words), None),
    (dataclasses.replace(plain, stages=(stage,)), None),
    (plain, evaluation),
  ]

  def described(experiment, evaluation):
    return identity.settings(experiment, (), "vocabulary", 0, evaluation)

  assert "word_files" not in described(plain, None)
  before = [described(*job) for job in jobs]
  path.write_text("awful\ngreat\n")
  for job, old in zip(jobs, before, strict=True):
    changed = bundle.Bundle({"run": old}, {})
    notes = identity.data_files(*job)
    notes = {key: f"{file} is new" for key, file in notes.items()}
    with pytest.raises(ValueError, match=r"word_files.*words.txt is new"):
      changed.insist_run(described(*job), tmp_path, notes)


def test_a_task_without_words_has_those_it_is_given():
  table = classes.of_task("skill_first", ["one", "two", "six"], encode)
  assert table.names == ("one", "two", "six")


@pytest.mark.parametrize(
  ("task", "given", "message"),
  [
    ("skill_first", None, "skill_first has no label words: set LABEL_WORDS"),
    (SST2, ["good"], "has 1 words; taskless_glue_sst2_v200 has 2 classes"),
    (SST2, {"good": "good", "bad": "bad"}, "the classes of .* are negative,"),
    ("mixed_words", None, "have different label words: "),
  ],
)
def test_words_that_do_not_fit(task, given, message, own_tasks):
  if task == "mixed_words":
    mixtures.declare(task, (SST2, RTE))
  with pytest.raises(ValueError, match=message):
    classes.of_task(task, given, encode)


# What recipes say.


def test_a_recipe_chooses_objective_and_evaluation():
  settings = EvaluationSettings(Dataset(SST2))
  assert recipes.objective([IA3()]) == CrossEntropy()
  assert recipes.evaluation(settings, [IA3()]) == settings
  warp = [Warp(emb_dim=4, label_words=("no", "yes"))]
  assert recipes.objective(warp) == Classes(OutputRows())
  chosen = recipes.evaluation(settings, warp)
  assert chosen.ways == ("rank",)
  assert chosen.scorer == OutputRows()
  mine = EvaluationSettings(Dataset(SST2), "generation", scorer=WholeWords())
  assert recipes.evaluation(mine, warp) == mine


def test_runs_with_other_objectives_do_not_share_a_bank():
  with pytest.raises(
    ValueError, match=r"cross_entropy, output_rows; .*OBJECTIVE"
  ):
    recipes.objective([IA3(), Warp(emb_dim=4)])


@pytest.mark.parametrize("format", ["sentinel", "plain"])
def test_a_templated_task_has_its_words_and_its_sentinel(
  monkeypatch, caplog, format
):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  templated.declare(
    "own_sst2",
    SST2,
    template='It was {"mask"} . {"field": "sentence"}',
    label_words={"negative": ["bad", "b\xff"], "positive": ["good", "great"]},
    target_format=format,
  )

  def lacking(text):
    return [2 if number > 127 else number for number in encode(text)]

  table = classes.of_task("own_sst2", None, lacking)
  start = "<extra_id_0>" if format == "sentinel" else ""
  assert table.words.start == tuple(encode(start))
  first = f"{start} bad".strip()
  np.testing.assert_array_equal(
    table.targets[0, : len(first) + 1], [*encode(first), 1]
  )
  assert table.words.lengths.tolist() == [[3, 0], [4, 5]]
  assert "lacks 1 of 4 label words" in caplog.text
  given = {"negative": "awful", "positive": "fine"}
  table = classes.of_task("own_sst2", given, lacking)
  assert table.words.lengths.tolist() == [[5], [4]]
