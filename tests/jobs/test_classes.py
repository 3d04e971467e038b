"""The classes of tasks, and the words by which they are scored."""

import dataclasses
import re

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import mixtures, spec, templated
from prompt_tuning.jobs import classes, identity, recipes
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.jobs.train_job import Experiment, TrainingStage
from prompt_tuning.models.scorers import OutputRows, Sentinels, WholeWords
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.objectives import CrossEntropy, Setting
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


@pytest.mark.parametrize(
  ("given", "exchanged"),
  [
    (["Positive", "negative"], ["'Positive' for the class 'negative'"]),
    (
      {"negative": {"bad": 1, "positive": 2}, "positive": "good"},
      ["'positive'"],
    ),
    (["negative", "positive"], []),
    (["bad", ["good", "negative"]], []),
    (None, []),
  ],
)
def test_words_that_are_names_of_other_classes_are_said(
  given, exchanged, caplog
):
  classes.of_task(SST2, given, encode)
  assert ("the name of another class" in caplog.text) == bool(exchanged)
  assert all(part in caplog.text for part in exchanged)


def of_letters(text):
  """A piece per letter; a sentinel is one piece."""
  return [
    200 - int(part) if part.isdigit() else ord(letter)
    for part in re.split(r"<extra_id_(\d+)>", text)
    for letter in ([part] if part.isdigit() else part.replace(" ", ""))
  ]


@pytest.fixture
def ruled(monkeypatch):
  """A task with a word of one letter at each of two masks."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  rules = {"negative": ["a", "b"], "positive": ["a", "c"]}
  return templated.declare(
    "own_sst2",
    SST2,
    template='{"mask"} {"field": "sentence"} {"mask"}',
    rules=rules,
  ).name


def test_rules_are_words_at_masks(ruled):
  table = classes.of_task(ruled, None, of_letters)
  assert table.names[1] == "<extra_id_0> a <extra_id_1> c"
  np.testing.assert_array_equal(
    table.targets, [[200, 97, 199, last, 1] for last in (98, 99)]
  )
  np.testing.assert_array_equal(table.words.at_masks, [[97, 98], [97, 99]])
  assert table.words.sentinels == (200, 199)
  assert table.words.start == (200,)
  Sentinels().insist_reads(table)
  with pytest.raises(ValueError, match="LABEL_WORDS are words of a single"):
    classes.of_task(ruled, ["bad", "good"], of_letters)
  with pytest.raises(ValueError, match="TUNER learns numbers for label words"):
    classes.words_of(ruled, None)


def test_rules_with_words_of_several_pieces_need_another_scorer(
  ruled, monkeypatch, caplog
):
  """Before anything trains, and in evaluation too."""
  task = spec.task(ruled)
  words = [["bc", "b"], ["a", "c"]]
  content = {**task.content, "rules": {**task.content["rules"], "words": words}}
  monkeypatch.setitem(
    spec._specs,
    "other",
    dataclasses.replace(task, name="other", content=content),
  )
  table = classes.of_task("other", None, of_letters)
  setting = Setting([lambda _: table], 300, 1)
  with pytest.raises(
    ValueError, match=r"several: bc \(negative\)\. Set SCORER"
  ):
    Classes(Sentinels()).for_runs(setting)
  assert Classes(WholeWords()).for_runs(setting).table is table


def test_words_of_several_pieces_stay_where_there_are_no_others(
  monkeypatch, caplog
):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  task = templated.declare(
    "own_sst2",
    SST2,
    template='{"field": "sentence"} {"mask"}',
    label_words={"negative": ["no", "bad"], "positive": ["a", "good"]},
    several_pieces="drop",
  )
  table = classes.of_task(task.name, None, of_letters)
  assert table.words.lengths.tolist() == [[2, 0], [1, 0]]
  lost, kept = (
    r.getMessage() for r in caplog.records if r.levelname == "WARNING"
  )
  assert "2 of 4 label words, which are not scored: bad (negative), go" in lost
  assert (
    "because their classes have no word of one piece: no (negative)." in kept
  )


@pytest.mark.parametrize("kind", ["label_words_file", "rules_file"])
def test_what_the_vocabulary_cannot_tell_has_a_file_and_a_line(
  monkeypatch, tmp_path, kind
):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  path = tmp_path / "words.json"
  path.write_text('{"negative": ["a"],\n"positive": ["A"]}')
  templated.declare(
    "own_sst2",
    SST2,
    template='{"field": "sentence"} {"mask"}',
    **{kind: str(path)},
  )
  where = rf"{re.escape(str(path))}:2: "
  with pytest.raises(ValueError, match=where):  # the same ids
    classes.of_task("own_sst2", None, lambda text: encode(text.lower()))
  with pytest.raises(ValueError, match=where):  # unknown
    classes.of_task(
      "own_sst2", None, lambda text: encode(text.replace("A", "\x02"))
    )


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
    (SST2, ["good"], "has 1 words; expected one for each of the 2 classes"),
    (SST2, {"good": "good", "bad": "bad"}, "the classes of .*: negative,"),
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
