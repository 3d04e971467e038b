"""Tables 1 and 2, section 7, SuperGLUE: what they make of numbers.

A folder that was run has results, which make its table and figure again; one
that was not run says so. Both make tables and figures of invented numbers here.
"""

import collections
import json
import pathlib

import numpy as np
import pytest

from experiments import transfer
from experiments.methods import real
from experiments.methods import run as gate
from experiments.section7_interpretability import run as section7
from experiments.superglue import run as superglue
from experiments.table1_domain_shift import run as table1
from experiments.table2_paraphrase import run as table2
from prompt_tuning.data import score
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.jobs import comparison_report
from prompt_tuning.jobs.comparison import PLAIN, Comparison, Score

FOLDERS = (table1, table2, section7, superglue)
LADDER = pathlib.Path(transfer.__file__).parent / "ladder"
PNG = b"\x89PNG"
CATEGORY, COUNT = "skill_category", "skill_count"


def was_run(folder):
  return (folder.HERE / "results.json").is_file()


DONE = [folder for folder in FOLDERS if was_run(folder)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.HERE.name)
def test_a_folder_says_whether_it_was_run(folder):
  readme = (folder.HERE / "README.md").read_text()
  assert ("not run yet" in readme) == (not was_run(folder))
  for name in ("table.md", "figure.png"):
    assert (folder.HERE / name).is_file() == was_run(folder)


@pytest.mark.parametrize("folder", DONE, ids=lambda f: f.HERE.name)
def test_results_make_table_and_figure(folder, tmp_path, same_picture):
  results = json.loads((folder.HERE / "results.json").read_text())
  table = (folder.HERE / "table.md").read_text()
  assert folder.table(results) == table
  assert table in (folder.HERE / "README.md").read_text()
  folder.draw(results, tmp_path / "figure.png")
  same_picture(tmp_path / "figure.png", folder.HERE / "figure.png")


def rows_of(sets, metrics):
  return [
    {
      "trained_on": trained,
      "tuning": tuning,
      "seed": seed,
      "scored_on": scored,
      "examples": 8,
      "metrics": metrics(tuning, seed),
    }
    for trained, scored in sets
    for tuning in transfer.TUNINGS
    for seed in (0, 1, 2)
  ]


def test_table_1_has_both_tunings_of_all_seeds(tmp_path):
  rows = rows_of(
    [(table1.TRAINED, scored) for scored in table1.SETS],
    lambda tuning, seed: {
      "f1": 10.0 * seed + 5 * (tuning == "prompt"),
      "em": 1.0,
    },
  )
  lines = table1.table(rows).splitlines()
  assert lines[-2].startswith(
    "| DuoRC | 8 | 10.0 ± 10.0 | 1.0 ± 0.0 | 15.0 ± 10.0 | 1.0 ± 0.0 | +5.0 |"
  )
  table1.draw(rows, tmp_path / "figure.png")
  assert (tmp_path / "figure.png").read_bytes()[:4] == PNG


def test_table_2_stands_beside_the_commoner_class(tmp_path):
  rows = rows_of(
    [(way.trained, way.scored) for way in table2.WAYS],
    lambda tuning, seed: {
      "accuracy": 60.0 + seed,
      "f1": 50.0,
      "legal_label_rate": 90.0,
      "gold_share/equivalent": 68.4,
      "gold_share/not_equivalent": 31.6,
    },
  )
  line = table2.table(rows).splitlines()[3]
  own = "61.0 ± 1.0 | 50.0 ± 0.0 | 90.0 ± 0.0"
  assert line.startswith(
    f"| QQP → MRPC | 8 | {own} | {own} | 68.4 | 73.1 ± 0.9"
  )
  table2.draw(rows, tmp_path / "figure.png")
  assert (tmp_path / "figure.png").read_bytes()[:4] == PNG


def test_section_7_finds_labels_and_words_of_the_domain(tmp_path):
  words = vocabularies.load("embedded:ladder_1")
  table = np.random.default_rng(1).normal(size=(words.size, 16))
  labels = section7.label_tokens(COUNT, words)
  assert len(labels) == 3
  # Three vectors near their labels, two near words of the task, one near none.
  pieces = words.pieces(range(words.size))
  usual = [i for i, piece in enumerate(pieces) if piece[1:].isalpha()][-9:]
  counts = {
    COUNT: collections.Counter(dict.fromkeys(usual[:2], 50) | {usual[8]: 50}),
    CATEGORY: collections.Counter(
      dict.fromkeys(usual[2:4], 50) | {usual[8]: 50}
    ),
  }
  typical = section7.typical_tokens(counts, words)
  assert set(usual[:2]) <= typical[COUNT]
  ranked = typical[COUNT] & set(usual[2:4])
  assert not ranked
  ids = [min(label) for label in labels] + usual[:2]
  vectors = np.stack([*table[ids], -table[ids[0]]]).astype(np.float32)
  prompts = [
    section7.Prompt(init, task, 0, vectors)
    for init in section7.INITS
    for task in (COUNT, CATEGORY)
  ]
  rows = section7.measure(prompts, table.astype(np.float32), words, typical)
  own = [row for row in rows if row["task"] == COUNT]
  assert [row["kept"] for row in own] == [None, None, 100.0]
  for row in own:
    assert row["labels"] == 100.0
    assert row["cosine"] > row["cosine_control"]
    assert [n[0] for n in row["neighbours"][:5]] == [pieces[i] for i in ids]
    assert row["typical"] > row["typical_of_others"]
  lines = section7.table(rows).splitlines()
  assert len(lines) == 2 + len(rows)
  section7.draw(rows, tmp_path / "figure.png")
  assert (tmp_path / "figure.png").read_bytes()[:4] == PNG


def test_superglue_averages_within_a_task_first(tmp_path):
  metrics = {
    f"taskless_super_glue_{name}": values
    for name, values in {
      "boolq_v102": {"accuracy": 80.0},
      "cb_v102": {"mean_3class_f1": 40.0, "accuracy": 60.0},
      "copa_v102": {"accuracy": 50.0},
      "multirc_v102": {"f1": 60.0, "exact_match": 20.0},
      "record_v102": {"f1": 10.0, "em": 0.0},
      "rte_v102": {"accuracy": 55.0},
      "wic_v102": {"accuracy": 50.0},
      "wsc_v102_simple_eval": {"accuracy": 60.0},
    }.items()
  }
  results = {
    "scale": "ladder",
    "score": score.aggregate(metrics),
    "metrics": metrics,
    "files": [{"file": "A", "answers": 9, "legal": None, "complete": False}],
  }
  text = superglue.table(results)
  assert "| CB | mean_3class_f1 40.0, accuracy 60.0 | 50.0 |" in text
  assert "| **SuperGLUE** | | **48.8** | 90.5 |" in text
  assert "| A | 9 | free text | no |" in text
  superglue.draw(results, tmp_path / "figure.png")
  assert (tmp_path / "figure.png").read_bytes()[:4] == PNG


def test_metrics_are_grouped_by_task():
  named = {"a/accuracy": 1.0, "b/f1": 2.0, "b/gold_share/not": 3.0}
  assert superglue.by_task(named) == {
    "a": {"accuracy": 1.0},
    "b": {"f1": 2.0, "gold_share/not": 3.0},
  }


def compared(title, value, more=(), task="t"):
  scores = [Score(PLAIN, task, None, 25.0), Score("random x", task, 0, 24.0)]
  scores += [Score(title, task, seed, value + seed) for seed in (0, 1)]
  scores += [Score(m, task, 0, 90.0) for m in more]
  trained = {title: 100, **dict.fromkeys(more, 1_000)}
  steps = dict.fromkeys(trained, 7)
  return Comparison(tuple(scores), {}, steps, 1_000, trained, True)


def test_comparisons_of_single_methods_become_one(tmp_path):
  whole = real.together(
    {
      "prompt": compared("prompt tuning", 40.0, ["model tuning"]),
      "prompt_sees_earlier": compared("prompt tuning", 50.0),
    }
  )
  assert whole.methods == (
    *(PLAIN, "prompt", "model tuning", "prompt_sees_earlier"),
  )
  assert whole.mean("prompt_sees_earlier") == 50.5
  assert whole.trained["model tuning"] == 1_000
  real.write({"ag_news": whole}, tmp_path)
  assert real.read(tmp_path) == {"ag_news": whole}
  table = comparison_report.as_markdown(whole)
  assert (tmp_path / real.TABLE).read_text().endswith(table)
  assert (tmp_path / real.FIGURE).read_bytes()[:4] == PNG


def test_methods_on_several_tasks_are_compared_where_all_have_scores():
  found = {
    "ag_news": real.together(
      {"prompt": compared("prompt tuning", 40.0), "lora": compared("LoRA", 1.0)}
    ),
    "sst2": real.together(
      {"prompt": compared("prompt tuning", 60.0, task="u")}
    ),
  }
  whole = real.across(found)
  assert whole.tasks == ("t", "u")
  assert whole.methods == (PLAIN, "prompt")
  assert whole.by_seed("prompt") == [50.0, 51.0]
  assert dict(whole.trained) == {"prompt": 100}
  assert real.by_task(found).splitlines() == [
    "| method | AG News | SST-2 |",
    "|---|---:|---:|",
    "| frozen model | 25.0 | 25.0 |",
    "| prompt | 40.5 ± 0.7 | 60.5 ± 0.7 |",
    "| lora | 1.5 ± 0.7 |  |",
  ]


def test_the_real_tasks_again_from_their_results(tmp_path, same_picture):
  real.write(real.read(real.HERE), tmp_path)
  for name in (real.RESULTS, real.TABLE):
    assert (tmp_path / name).read_text() == (real.HERE / name).read_text()
  same_picture(tmp_path / real.FIGURE, real.HERE / real.FIGURE)


def test_a_real_method_of_its_own_joins_those_that_are_there(
  tmp_path, monkeypatch
):
  titles = {"prompt": ("prompt tuning", 40.0, ["model tuning"])}
  titles |= {"lora": ("LoRA", 60.0), "warp": ("WARP", 80.0)}
  monkeypatch.setattr(
    real, "run", lambda given, task, name: compared(*titles[name], task=task)
  )
  asked = ["--output_dir", str(tmp_path), "--method"]
  assert not real.main([*asked, "warp", "--task", "sst2"])
  assert not real.main([*asked, "prompt", "lora"])
  titles["prompt"] = ("prompt tuning", 50.0, ["model tuning"])
  assert not real.main([*asked, "prompt", "--task", "sst2"])
  by_first_pieces = compared("WARP", 80.0, task="sst2")
  plain = by_first_pieces.scores[0]._replace(score=99.0)
  scores = (plain, *by_first_pieces.scores[1:])
  new = real.together({"warp": by_first_pieces._replace(scores=scores)})
  found = real.read(tmp_path)
  assert set(found) == set(real.TASKS)
  assert found["ag_news"].methods == (PLAIN, "prompt", "model tuning", "lora")
  assert found["ag_news"].mean("prompt") == 40.5
  whole = real.merged(found["sst2"], new)
  assert whole.methods == (PLAIN, "prompt", "model tuning", "lora", "warp")
  assert list(map(whole.mean, whole.methods)) == [25.0, 50.5, 90.0, 60.5, 80.5]
  assert list(whole.steps) == ["prompt", "model tuning", "lora", "warp"]
  other = compared("LoRA", 60.0)._replace(parameters=2_000)
  with pytest.raises(ValueError, match="choose another --output_dir"):
    real.merged(whole, real.together({"lora": other}))


def test_every_method_on_every_real_task_is_on_the_page():
  results = real.read(real.HERE)
  assert list(results) == list(real.TASKS)
  for task, found in results.items():
    assert found.frozen, task
    expected = {PLAIN, "model tuning", *gate.METHODS}
    assert set(found.methods) == expected, task
    seeds = {
      name: len(found.by_seed(name)) for name in found.methods if name != PLAIN
    }
    assert set(seeds.values()) == {3}, (task, seeds)
  readme = (real.HERE / "README.md").read_text()
  table = (real.HERE / real.TABLE).read_text()
  lines = [line for line in table.splitlines() if line.startswith("|")]
  assert all(line in readme for line in lines)


def test_the_ladder_s_page_has_the_optimizers_that_were_tried():
  rows = []
  for trial in json.loads((LADDER / "optimizers.json").read_text("utf-8")):
    curves = trial["held_out_cross_entropy"]
    losses = [curve.get("2500") for curve in curves.values()]
    if None in losses:  # it was stopped, since its losses rose
      assert all(curve["1000"] > curve["500"] for curve in curves.values())
      continue
    cells = [trial["optimizer"], str(trial["learning_rate"])]
    cells += [f"{loss:.2f}" for loss in losses]
    rows.append(f"| {' | '.join(cells)} |")
  page = (LADDER / "README.md").read_text("utf-8").splitlines()
  first = page.index(rows[0])
  assert page[first : first + len(rows)] == rows
  assert page[first + len(rows)] == ""
