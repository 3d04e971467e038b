"""Jobs on a templated task: starts of soft tokens, and texts for priors."""

import json

import pytest
import seqio

from prompt_tuning.data import custom, spec, templated, vocabulary
from prompt_tuning.data.in_context import InContext
from prompt_tuning.infer.calibrated import Calibration
from prompt_tuning.jobs import feed, setup
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.models.scorers import WholeWords

SPLITS = {"own": ("train", "validation"), "untaught": ("validation",)}


@pytest.fixture
def tasks(tmp_path, monkeypatch):
  """Two tasks, one of them without a training split."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  known = dict(seqio.TaskRegistry._REGISTRY)
  monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", known)
  monkeypatch.setattr(vocabulary, "_configured", "embedded:ladder_1")
  path = tmp_path / "rows.jsonl"
  rows = [{"text": f"the sea {k}", "kind": k % 2} for k in range(6)]
  path.write_text("\n".join(map(json.dumps, rows)))
  for name, splits in SPLITS.items():
    custom.declare(
      f"rows_of_{name}",
      dict.fromkeys(splits, str(path)),
      template="{text}",
      target_column="kind",
      label_words=("no", "yes"),
    )
    templated.declare(
      name,
      f"rows_of_{name}",
      template='{"soft": "sea"} {"field": "text"} {"mask"} {"soft"}',
      label_words={"no": ["cold", "bad"], "yes": "wide"},
    )


def evaluation(name, **settings):
  dataset = Dataset(
    mixture_or_task_name=name,
    batch_size=2,
    split="validation",
    task_feature_lengths={"inputs": 32, "targets": 8},
    **settings,
  )
  return EvaluationSettings(
    dataset, by="rank", scorer=WholeWords(), calibration=Calibration(texts=4)
  )


def test_soft_tokens_and_classes_have_the_templates_words(tasks):
  words = vocabulary.load()
  sea = words.encode("sea")
  assert setup._soft_pieces("own", words) == (*sea, None)
  assert setup._soft_pieces("rows_of_own", words) == ()
  assert setup.task_words("own") == ("cold", "wide")


def test_priors_are_told_by_the_training_split(tasks, tmp_path):
  settings = evaluation("own", cache_dir=str(tmp_path / "cache"))
  (dataset,) = feed.eval_sets(
    settings.dataset,
    "own",
    None,
    classes_of=feed.scored_classes(settings),
    calibration=settings.calibration,
  )
  assert len(dataset.unlabelled) == 4
  rows = {row.tobytes() for row in dataset.inputs}  # the same file
  assert {row.tobytes() for row in dataset.unlabelled} < rows
  assert dataset.classes.names == ("<extra_id_0> cold", "<extra_id_0> wide")
  settings = evaluation("untaught", cache_dir=str(tmp_path / "cache"))
  with pytest.raises(
    ValueError, match="untaught has no training split, and so"
  ):
    feed.eval_sets(
      settings.dataset,
      "untaught",
      None,
      classes_of=feed.scored_classes(settings),
      calibration=settings.calibration,
    )


def test_calibration_is_of_a_scorers_words():
  dataset = Dataset(mixture_or_task_name="skill_first", batch_size=2)
  with pytest.raises(ValueError, match="CALIBRATION is of a scorer's words"):
    EvaluationSettings(dataset, calibration=Calibration())
  with pytest.raises(ValueError, match="it goes with no demonstrations"):
    EvaluationSettings(
      dataset,
      scorer=WholeWords(),
      calibration=Calibration(),
      context=InContext(shots=1),
    )
