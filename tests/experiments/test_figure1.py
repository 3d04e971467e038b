"""Figures 1 and 3d: groups of tasks, searches, tables, models on the way."""

import json
import pathlib

import pytest

from experiments.figure1_scale import run as figure1
from experiments.figure1_scale import wider
from experiments.figure3d_adaptation import run as figure3d
from prompt_tuning.data import skills, spec
from prompt_tuning.jobs import comparison, sweep_report
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.launch import command, flags, sweep

ROOT = pathlib.Path(__file__).parents[2]
FIGURE1 = ROOT / "experiments" / "figure1_scale"


def configured(group, folder, *bindings):
  argv = figure1.arguments(
    group, "embedded:ladder_1", "embedded:ladder_1", folder, bindings
  )
  return command.configure("compare", flags.parse("compare", argv, ""))


@pytest.mark.parametrize("group", figure1.GROUPS)
def test_every_group_can_be_compared(group, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  job = configured(group, tmp_path, "PROMPT_RATES=(0.1,)", "MODEL_RATES=(1,)")
  (prompts,) = job.trainings
  tasks = prompts.experiment.dataset.names
  assert len(tasks) == {"skills": 17, "held_out": 8}.get(group, 2)
  if group == "held_out":
    assert tasks == tuple(f"skill_{name}" for name in skills.HELD_OUT)
  assert prompts.experiment.learning_rates == (0.1,)
  assert [c.title for c in job.contexts][-1:] == (
    [figure1.DESIGN] if group == "reviews" else [figure1.FEW]
  )
  every = (prompts, job.models, job.multitask)
  assert {training.experiment.seeds for training in every} == {(0, 1, 2)}
  # Models train for as long or longer, one model for all tasks at least twice
  # as long; they stop when they no longer get better.
  assert prompts.evaluations.patience is None
  steps = [training.duration.relative_steps for training in every]
  assert steps == {
    "skills": [300, 600, 2_400],
    "held_out": [600, 800, 2_400],
  }.get(group, [1_200, 1_200, 2_400])
  for models in (job.models, job.multitask):
    assert models.experiment.learning_rates == (1,)
    assert models.evaluations.patience == 3
  assert job.multitask.evaluations.evaluation.dataset.names == (
    job.multitask.experiment.dataset.names
  )
  assert {job.named[task] for task in tasks} == set(
    spec.get(f"figure1_{group}").rates
  )


def test_a_search_has_a_seed_of_its_own(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  rates = ("PROMPT_RATES=(0.1, 0.3)", "MODEL_RATES=(0.001, 0.01)")
  steps = figure1.search_steps("held_out")
  job = configured("held_out", tmp_path, *figure1._SEARCH, *steps, *rates)
  (prompts,) = job.trainings
  assert prompts.experiment.seeds == job.models.experiment.seeds == (3,)
  assert prompts.duration.relative_steps == 100
  assert job.models.duration.relative_steps == 200
  assert job.multitask is None
  assert not job.contexts
  assert not job.instructed
  assert job.test.dataset.split == "validation"
  assert job.test.num_examples == 64
  scores = []
  wanted = {
    figure1.PROMPT: {0.1: 20.0, 0.3: 40.0},
    comparison.MODEL: {0.001: 70.0, 0.01: 70.0},
  }
  trainings = {figure1.PROMPT: prompts, comparison.MODEL: job.models}
  for name, training in trainings.items():
    runs = training.experiment.runs
    titles = job.run_titles(training)
    for number, (title, one) in enumerate(zip(titles, runs, strict=True)):
      # Tasks differ by as much above the mean as below.
      off = 5.0 if number // 2 % 2 else -5.0
      score = wanted[name][one.learning_rate] + off
      scores.append(Score(title, one.task, one.seed, score))
  search = Comparison(tuple(scores), {}, {}, 1, {}, True)
  found = figure1.development(job, search)
  assert found == wanted
  # Of equal ones, the smallest.
  assert figure1.chosen(found) == {figure1.PROMPT: 0.3, comparison.MODEL: 0.001}


def test_a_wider_search_is_of_rates_at_the_edge(tmp_path, monkeypatch):
  points = {(p.rung, p.group): p for p in figure1.read(FIGURE1)}
  asked = {}

  def search(given, checkpoint, group, rates, folder):
    asked[group] = (checkpoint, rates, folder)
    return {
      name: {rate: 50.0 + rate for rate in of_method}
      for name, of_method in rates.items()
    }

  monkeypatch.setattr(figure1, "search", search)
  words = [f"--work_dir={tmp_path}", f"--output_dir={tmp_path}", "--group"]
  rung = "--rung=tall_3=embedded:tall_3"
  assert not wider.main([rung, *words, "held_out", "sentences"])
  for group, (checkpoint, rates, folder) in asked.items():
    assert checkpoint == "embedded:tall_3"
    assert folder == tmp_path / "tall_3" / group / "wider"
    for name, rate in points["tall_3", group].rates.items():
      edge = rate == max(figure1.RATES[name])
      assert rates[name] == ((rate, wider.ABOVE[name]) if edge else (rate,))
  before = wider.read(tmp_path)
  assert [(r["group"], r["method"]) for r in before] == [
    ("held_out", figure1.PROMPT),
    ("held_out", comparison.MODEL),
    ("sentences", comparison.MODEL),
  ]
  # Another point joins these.
  assert not wider.main([rung, *words, "topics"])
  rows = wider.read(tmp_path)
  assert [row for row in rows if row["group"] != "topics"] == before
  assert (tmp_path / wider.TABLE).read_text() == wider.table(rows)
  assert "| held_out | tall_3 | model tuning | 0.01: 50.0 | 0.03: 50.0 |" in (
    wider.table(rows)
  )


def test_figure_1_again_from_its_results(tmp_path, same_picture):
  folder = FIGURE1
  points = figure1.read(folder)
  figure1.write(points, tmp_path)
  for name in (figure1.RESULTS, figure1.TABLE, figure1.SEARCH):
    assert (tmp_path / name).read_text() == (folder / name).read_text()
  same_picture(tmp_path / figure1.FIGURE, folder / figure1.FIGURE)
  assert figure1.read(tmp_path) == points
  assert figure1.gap_table(points) in (folder / "README.md").read_text()
  # Three groups of tasks on three rungs.
  assert len({point.group for point in points}) == 3
  assert len({point.rung for point in points}) == 3
  assert len(points) == 9
  for point in points:
    assert len(figure1.by_seed(point, figure1.PROMPT)) >= 3
    assert len(figure1.by_seed(point, comparison.MODEL)) >= 3


def test_a_comparison_of_other_settings_is_not_taken_for_this_one(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(ROOT)
  # So long that gin breaks the line.
  for folder in (tmp_path / "a", tmp_path / ("long" * 30)):
    configured("held_out", folder, "PROMPT_RATES=(0.1,)", "MODEL_RATES=(1,)")
    settings = figure1.asked("embedded:ladder_1")
    figure1.insist_on_same(tmp_path / "work", settings)
  assert settings["TRAIN_STEPS_RELATIVE"] == "600"
  (tmp_path / "work" / comparison.FILE).write_text("{}")
  figure1.insist_on_same(tmp_path / "work", settings)
  other = figure1.asked("embedded:ladder_2")
  with pytest.raises(SystemExit, match=r"weights = d2c07.*this one has 793e"):
    figure1.insist_on_same(tmp_path / "work", other)
  with pytest.raises(SystemExit, match="STEPS_RELATIVE = 600; this one has 9"):
    figure1.insist_on_same(
      tmp_path / "work", settings | {"TRAIN_STEPS_RELATIVE": "9"}
    )
  # Scores of which nobody knows what they are of.
  (tmp_path / "work" / figure1.ASKED).unlink()
  with pytest.raises(SystemExit, match="= None; this one has"):
    figure1.insist_on_same(tmp_path / "work", settings)


def test_a_new_point_stands_in_the_place_of_the_old_one():
  small, large = (
    figure1.Point(name, "held_out", size, size, {}, {}, {}, ())
    for name, size in (("small", 10), ("large", 20))
  )
  first = small._replace(group="skills")
  points = figure1.merged([large, first], small)
  assert points == [first, small, large]
  other = small._replace(rates={figure1.PROMPT: 0.3})
  assert figure1.merged(points, other) == [first, other, large]


def test_gaps_and_tasks():
  def scores(method, *of_seeds, task="skill_sort"):
    seeds = range(len(of_seeds))
    return tuple(
      Score(method, task, seed, score)
      for seed, score in zip(seeds, of_seeds, strict=True)
    )

  point = figure1.Point(
    *("small", "held_out", 10, 12, {}, {}, {}),
    (
      *scores(comparison.PLAIN, 20.0),
      *scores(comparison.PLAIN, 0.0, task="skill_last"),
      *scores(figure1.PROMPT, 47.0, 50.0, 53.0),
      *scores(figure1.PROMPT, 67.0, 70.0, 73.0, task="skill_last"),
      *scores(comparison.MODEL, 76.0, 80.0, 84.0),
      *scores(comparison.MODEL, 96.0, 100.0, 104.0, task="skill_last"),
    ),
  )
  # 90 - 60, sqrt(3 ** 2 + 4 ** 2), and (60 - 10) / (90 - 10).
  last = figure1.gap_table([point]).splitlines()[-1]
  assert last == "| held_out | small | 30.0 ± 5.0 |  | 62% |"
  tasks = figure1.task_table([point, point._replace(rung="large")])
  assert [line[:29] for line in tasks.splitlines()[2:]] == [
    "| held_out | sort | small | 2",
    "| held_out | sort | large | 2",
    "| held_out | last | small | 0",
    "| held_out | last | large | 0",
  ]
  assert "| 70.0 ± 3.0 | 100.0 ± 4.0 |" in tasks.splitlines()[-1]


def test_models_on_the_way_of_lm_adaptation(tmp_path):
  stages = {"span_corruption": 12_000, "lm_adaptation": 18_000}
  for stage, steps in stages.items():
    (tmp_path / stage / f"checkpoint_{steps}").mkdir(parents=True)
  bundles = tmp_path / "lm_adaptation" / "bundles"
  for steps in (500, 1_200, 3_600, 6_000):
    (bundles / f"step_{steps:08d}").mkdir(parents=True)
  models = figure3d.on_the_way("tall_1", tmp_path)
  assert [model.steps for model in models] == [0, 500, 1_200, 3_600, 6_000]
  assert [model.source.name for model in models] == [
    "checkpoint_12000",
    "step_00000500",
    "step_00001200",
    "step_00003600",
    "checkpoint_18000",
  ]
  (tmp_path / "lm_adaptation" / "checkpoint_18000").rmdir()
  with pytest.raises(FileNotFoundError, match="has 0 checkpoints"):
    figure3d.on_the_way("tall_1", tmp_path)


def test_figure_3d_again_from_its_results(tmp_path, same_picture):
  folder = figure3d.HERE
  content = json.loads((folder / figure3d.RESULTS).read_text())
  points = [sweep_report.Point(**row) for row in content]
  figure3d.write(points, tmp_path)
  table = (tmp_path / figure3d.TABLE).read_text()
  assert table == (folder / figure3d.TABLE).read_text()
  same_picture(tmp_path / figure3d.FIGURE, folder / figure3d.FIGURE)
  readme = (folder / "README.md").read_text()
  rungs = ("tall_1", "tall_2", "tall_3")
  for steps in (0, 600, 1_200, 3_000, 6_000):
    (*cells,) = (
      line.split(" | ")[2]
      for rung in rungs
      for line in table.splitlines()
      if line.startswith(f"| {rung} | {steps} |")
    )
    assert f"| {steps:,} | {' | '.join(cells)} |" in readme


def test_figure_3d_of_a_sweep_s_results(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  names = {0: "embedded:ladder_1_span_corruption", 600: "embedded:ladder_1"}
  paths = {
    path: figure3d.Model("tall_1", steps, tmp_path)
    for steps, path in names.items()
  }
  command_line = figure3d.arguments(list(paths), tmp_path, ["BATCH_SIZE=4"])
  own, rest = sweep.split(command_line[1:])
  job = sweep.configure(flags.parse("sweep", rest, ""), own.axis)
  assert len(job.cells) == 6
  points = [
    sweep_report.Point(
      cell.name, cell.values, "", "t", int(cell.values["SEEDS"]), 1, 1, 10.0, {}
    )
    for cell in job.cells
  ]
  text = json.dumps(sweep_report.as_json(job, points))
  (tmp_path / "results.json").write_text(text)
  named = figure3d.read(tmp_path / "results.json", paths)
  assert [p.values[figure3d.STEPS] for p in named] == ["0", "600"] * 3
  figure3d.write(named, tmp_path)
  table = (tmp_path / "table.md").read_text()
  assert "| tall_1 | 600 | 10.0 ± 0.0 | 3 |" in table
  assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
