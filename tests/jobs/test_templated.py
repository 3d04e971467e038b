"""Jobs on a templated task: starts of soft tokens, and texts for priors."""

import json

import numpy as np
import pytest
import seqio

from prompt_tuning.data import custom, ragged, spec, templated, vocabulary
from prompt_tuning.data.assembly import Assembler, one_per_row
from prompt_tuning.data.in_context import InContext
from prompt_tuning.infer.calibrated import Calibration
from prompt_tuning.jobs import feed, setup
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.models.scorers import WholeWords
from prompt_tuning.tuners.p_tuning import PTuning

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


def test_p_tuning_stands_in_the_templates_slots(tasks, tmp_path):
  """Around the text, where the template says so, and not in front of it."""
  settings = evaluation("own", cache_dir=str(tmp_path / "cache"))
  (dataset,) = feed.eval_sets(
    settings.dataset,
    "own",
    None,
    classes_of=feed.scored_classes(settings),
    calibration=settings.calibration,
  )
  rows, vocab_rows = ragged.from_rows(dataset.inputs, np.int32), 5_000
  method = PTuning(emb_dim=8, length=2)
  assembler = Assembler(rows, rows, method.placement, vocab_rows)
  shape = (len(rows), 32, 32)
  batch = assembler(one_per_row(np.arange(len(rows)), shape), packed=False)
  for given, found in zip(
    dataset.inputs, batch["encoder_input_tokens"], strict=True
  ):
    (places,) = np.nonzero(found >= vocab_rows)
    assert found[places].tolist() == [vocab_rows, vocab_rows + 1]
    assert places[0] == 0
    assert places[1] == len(given) - 2  # only EOS stands behind it
  longer = PTuning(emb_dim=8, length=3).placement
  with pytest.raises(ValueError, match=r"makes 3 .*P_TUNING_LENGTH\) to 2"):
    Assembler(rows, rows, longer, vocab_rows).encoder_lengths()


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
  with pytest.raises(ValueError, match="untaught has no training split, but"):
    feed.eval_sets(
      settings.dataset,
      "untaught",
      None,
      classes_of=feed.scored_classes(settings),
      calibration=settings.calibration,
    )


def test_calibration_is_of_a_scorers_words():
  dataset = Dataset(mixture_or_task_name="skill_first", batch_size=2)
  with pytest.raises(ValueError, match="CALIBRATION corrects the scores"):
    EvaluationSettings(dataset, calibration=Calibration())
  with pytest.raises(ValueError, match="cannot be used with demonstrations"):
    EvaluationSettings(
      dataset,
      scorer=WholeWords(),
      calibration=Calibration(),
      context=InContext(shots=1),
    )
