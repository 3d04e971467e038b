"""Results of the paper's experiments make their tables and figures again."""

import json
import pathlib
import re

import jax
import pytest

from experiments import collect
from experiments.figure3c_pretraining import run as figure3c
from experiments.paper import costs
from experiments.table3_ensembling import run as table3
from experiments.table4_parameters import run as table4
from prompt_tuning.jobs import abstract_setup, sweep_banks
from prompt_tuning.launch import flags, sweep

ROOT = pathlib.Path(__file__).parents[2]
# Folder -> the axis of its figure, that of its tasks, and how many runs it has.
SWEPT = {
  "figure3c_pretraining": ("model", None, 288),
  "figure3a_length": ("PROMPT_LENGTH", None, 90),
  "figure3b_initialisation": ("@init", "@task", 54),
}
# Parameters of T5 1.1 and features of a token, by the paper's own shapes.
MODELS = {
  "small": (76_961_152, 512),
  "base": (247_577_856, 768),
  "large": (783_150_080, 1_024),
  "xl": (2_849_757_184, 2_048),
  "xxl": (11_135_332_352, 4_096),
}


def read(folder):
  path = ROOT / "experiments" / folder
  return json.loads((path / "results.json").read_text()), (
    path / "table.md"
  ).read_text()


@pytest.mark.parametrize("name", SWEPT)
def test_a_sweep_s_results_make_table_and_figure(name, tmp_path, same_picture):
  axis, tasks, runs = SWEPT[name]
  folder = ROOT / "experiments" / name
  points, mean_over = collect.read(folder)
  if name == "figure3c_pretraining":
    points = list(map(figure3c.named, points))
  assert len(points) == runs
  assert all(point.score is not None for point in points)
  table = (folder / "table.md").read_text()
  assert collect.table(points, mean_over, tasks) == table
  readme = (folder / "README.md").read_text()
  assert table.split("\n\n")[-1].strip() in readme
  collect.draw(points, mean_over, axis, tasks, tmp_path / "figure.png")
  same_picture(tmp_path / "figure.png", folder / "figure.png")


@pytest.mark.parametrize(
  ("checkpoint", "model"),
  [
    ("embedded:ladder_2", ("ladder_2", figure3c.AFTER)),
    ("embedded:ladder_1_span_corruption", ("ladder_1", figure3c.BEFORE)),
    (
      "runs_tall_3_lm_adaptation_checkpoint_18000",
      ("tall_3", figure3c.AFTER),
    ),
    ("runs/tall_1/span_corruption/checkpoint_9", ("tall_1", figure3c.BEFORE)),
  ],
)
def test_a_checkpoint_tells_its_model_and_pre_training(checkpoint, model):
  assert figure3c.model_of(checkpoint) == model


def test_another_checkpoint_is_no_stage_of_a_pre_training():
  with pytest.raises(ValueError, match="is no stage of a pre-training"):
    figure3c.model_of("t5_1_1_small")


WIDTHS = {
  "embedded:ladder_1": 96,
  "embedded:ladder_1_span_corruption": 96,
  "embedded:ladder_2": 128,
  "tall_1": 96,
  "tall_2": 128,
  "tall_3": 192,
}


@pytest.mark.parametrize("name", SWEPT)
def test_prompts_are_as_long_as_the_document_says(name):
  points, _ = collect.read(ROOT / "experiments" / name)
  readme = (ROOT / "experiments" / name / "README.md").read_text()
  said = re.search(r"prompts of (\d+) vectors", readme)
  for point in points:
    path = point.values["INITIAL_CHECKPOINT_PATH"]
    rung = re.sub(r"runs_(tall_\d)_.*", r"\1", path)
    width = WIDTHS[rung]
    length = int(point.values.get("PROMPT_LENGTH") or said[1])
    assert point.parameters == length * width


def test_table_3(tmp_path, same_picture):
  rows, table = read("table3_ensembling")
  assert table3.table(rows) == table
  table3.draw(rows, tmp_path / "figure.png")
  same_picture(tmp_path / "figure.png", table3.HERE / "figure.png")
  readme = (ROOT / "experiments/table3_ensembling/README.md").read_text()
  assert table in readme
  for row in rows:
    assert len(row["members"]) == 5
    assert row["vote"] >= row["mean"]
    assert row["best"] == max(row["members"])


def test_table_4(monkeypatch, tmp_path, same_picture):
  monkeypatch.chdir(ROOT)
  rows, table = read("table4_parameters")
  assert table4.table(rows) == table
  table4.draw(rows, tmp_path / "figure.png")
  same_picture(tmp_path / "figure.png", table4.HERE / "figure.png")
  own = [row for row in rows if row["scale"] == "paper"]
  assert table4.count("paper") == own
  assert own == [
    {
      "scale": "paper",
      "size": size,
      "length": length,
      "trained": length * width,
      "model": parameters,
    }
    for size, (parameters, width) in MODELS.items()
    for length in (1, 5, 20, 50, 100, 150)
  ]
  printed = {
    (row["size"], row["length"]): f"{table4.share(row):.5f} %" for row in own
  }
  assert printed["large", 100] == "0.01307 %"
  assert printed["xl", 20] == "0.00144 %"
  assert printed["xl", 100] == "0.00719 %"
  assert table.count("*(sic)*") == 6


def test_the_largest_step_of_the_paper_can_be_traced(monkeypatch):
  """XXL, five prompts of 100 vectors side by side; data are declared."""
  monkeypatch.chdir(ROOT)
  path = "experiments/table3_ensembling/paper.gin"
  job = sweep.configure(flags.parse("sweep", [f"--gin_file={path}"], ""))
  bank, *others = sweep_banks.share(job.cells, job.model_dir, job.most_runs)
  assert len(others) == 7
  experiment = bank.job.experiment
  step = abstract_setup.describe(experiment, bank.job.source, None)
  state, metrics = jax.eval_shape(step.program.step, *step.arguments)
  (vectors,) = jax.tree.leaves(state.trainable)
  assert vectors.shape == (5, 100, 4_096)
  assert metrics.sums["loss"].shape == (5,)
  plans = json.loads((ROOT / "experiments/plans/results.json").read_text())
  known = json.loads((ROOT / "experiments/paper/costs.json").read_text())
  assert costs.cost(job, plans) == known["table3_ensembling"]


def test_what_the_paper_costs():
  folder = ROOT / "experiments" / "paper"
  known = json.loads((folder / "costs.json").read_text())
  plans = json.loads((ROOT / "experiments/plans/results.json").read_text())
  tables = [costs.table(known), costs.slices(plans)]
  assert "\n".join(tables) == (folder / "costs.md").read_text()
  readme = (ROOT / "experiments/README.md").read_text()
  assert all(table in readme for table in tables)
