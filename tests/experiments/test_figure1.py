"""Figures 1 and 3d: groups of tasks, searches, tables, models on the way."""

import json
import pathlib
import types

import pytest

from experiments.figure1_scale import longer, wider
from experiments.figure1_scale import run as figure1
from experiments.figure3d_adaptation import run as figure3d
from prompt_tuning.core import files
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
  before = wider.CHECK.read(tmp_path)
  assert [(r["group"], r["method"]) for r in before] == [
    ("held_out", figure1.PROMPT),
    ("held_out", comparison.MODEL),
    ("sentences", comparison.MODEL),
  ]
  # Another point joins these.
  assert not wider.main([rung, *words, "topics"])
  rows = wider.CHECK.read(tmp_path)
  assert [row for row in rows if row["group"] != "topics"] == before
  assert (tmp_path / wider.CHECK.page).read_text() == wider.table(rows)
  assert "| held_out | tall_3 | model tuning | 0.01: 50.0 | 0.03: 50.0 |" in (
    wider.table(rows)
  )


def test_longer_trainings_are_of_one_seed_and_twice_the_steps(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(ROOT)
  points = {(p.rung, p.group): p for p in figure1.read(FIGURE1)}
  before = points["tall_3", "held_out"]
  asked = []

  def compare_with(given, checkpoint, group, bindings, folder):
    job = configured(group, tmp_path / "job", *bindings)
    asked.append((checkpoint, job, folder))
    scores = [
      Score(name, s.task, s.seed, s.score + 1.5)
      for s in before.scores
      for name in longer.METHODS
      if (s.method, s.seed) == (name, longer.SEED)
    ]
    taken = {figure1.PROMPT: 1_200, comparison.MODEL: 1_000}
    return Comparison(tuple(scores), {}, taken, 1, {}, True), job

  monkeypatch.setattr(figure1, "compare_with", compare_with)
  words = [f"--work_dir={tmp_path}", f"--output_dir={tmp_path}"]
  rung = "--rung=tall_3=embedded:tall_3"
  assert not longer.main([rung, *words, "--group=held_out"])
  ((checkpoint, job, folder),) = asked
  assert checkpoint == "embedded:tall_3"
  assert folder == tmp_path / "tall_3" / "held_out" / "longer"
  (prompts,) = job.trainings
  assert job.multitask is None
  for training, name in ((prompts, figure1.PROMPT), (job.models, "model")):
    steps = {figure1.PROMPT: 1_200, "model": 1_600}[name]
    assert training.duration.relative_steps == steps
    assert training.experiment.seeds == (longer.SEED,)
  assert prompts.experiment.learning_rates == (before.rates[figure1.PROMPT],)
  assert job.models.evaluations.patience == 3
  (row,) = longer.CHECK.read(tmp_path)
  assert row["methods"][comparison.MODEL]["steps"] == [800, 1_000]
  for name, found in row["methods"].items():
    old, new = found["scores"]
    assert new - old == pytest.approx(1.5)
    assert old == pytest.approx(figure1.by_seed(before, name)[longer.SEED])
  lines = (tmp_path / longer.CHECK.page).read_text().splitlines()
  assert len(lines) == 4
  assert lines[3].startswith("| held_out | tall_3 | ")
  assert "(1,000 steps)" in lines[3]


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


def test_the_page_has_the_checks_of_figure_1_s_limits():
  readme = (FIGURE1 / "README.md").read_text()
  points = {(p.rung, p.group): p for p in figure1.read(FIGURE1)}
  for check in (wider, longer):
    rows = check.CHECK.read(FIGURE1)
    table = (FIGURE1 / check.CHECK.page).read_text()
    assert check.table(rows) == table
    assert table in readme
  for row in wider.CHECK.read(FIGURE1):
    chosen = points[row["rung"], row["group"]].rates[row["method"]]
    assert list(row["scores"]) == [str(chosen), str(wider.ABOVE[row["method"]])]
    before, above = row["scores"].values()
    assert above < before
  for row in longer.CHECK.read(FIGURE1):
    point = points[row["rung"], row["group"]]
    for name, found in row["methods"].items():
      assert found["steps"][0] == point.steps[name]
      of_seed = figure1.by_seed(point, name)[longer.SEED]
      assert found["scores"][0] == pytest.approx(of_seed)


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


@pytest.fixture(name="nothing_trains")
def make_nothing_trains(monkeypatch):
  """Insist that what is refused is refused before any training."""
  monkeypatch.setattr(
    figure1.compare, "compare", lambda *_, **__: pytest.fail("it trains")
  )


@pytest.mark.usefixtures("nothing_trains")
def test_a_file_that_is_damaged_is_a_single_line(tmp_path):
  argv = [f"--work_dir={tmp_path}", f"--output_dir={tmp_path}"]
  argv += ["--rung", "small=embedded:ladder_1", "--group", "held_out"]
  point = json.loads((FIGURE1 / figure1.RESULTS).read_text())[0]
  texts = (
    "",
    "[{",
    "[1]",
    '{"points": []}',
    json.dumps([point | {"steps": 3}]),
  )
  for text in texts:
    (tmp_path / figure1.RESULTS).write_text(text)
    with pytest.raises(SystemExit, match="give another --output_dir") as caught:
      figure1.main(argv)
    assert str(tmp_path / figure1.RESULTS) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / figure1.RESULTS).read_text() == text
  for text in ("", '{"weights": "d2', "[]", '{"weights": 3}'):
    (tmp_path / figure1.ASKED).write_text(text)
    with pytest.raises(SystemExit, match="another --work_dir") as caught:
      figure1.insist_on_same(tmp_path, {"weights": "d2"})
    assert str(tmp_path / figure1.ASKED) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_was_asked_for_is_written_whole_or_not_at_all(
  tmp_path, monkeypatch
):
  def kill(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(files, "_rename", kill)
    with pytest.raises(KeyboardInterrupt):
      figure1.insist_on_same(tmp_path, {"weights": "d2"})
  assert not list(tmp_path.iterdir())
  figure1.insist_on_same(tmp_path, {"weights": "d2"})
  figure1.insist_on_same(tmp_path, {"weights": "d2"})


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize("check", [wider, longer])
def test_a_check_is_of_a_point_of_figure_1(check, tmp_path):
  words = [f"--work_dir={tmp_path}", f"--output_dir={tmp_path}"]
  message = "no point of tall_9 on topics; expected one of tall_1 on held_out,"
  with pytest.raises(SystemExit, match=message):
    check.main(["--rung=tall_9=embedded:tall_3", "--group=topics", *words])
  (tmp_path / check.CHECK.results).write_text('[{"rung": 1}]')
  with pytest.raises(SystemExit, match="Put the right file there"):
    check.CHECK.read(tmp_path)


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize("command_of", [figure1, wider, longer, figure3d])
@pytest.mark.parametrize(
  "rung", ["tall_3", "tall_3=", "=embedded:tall_3", "a/b=c"]
)
def test_a_rung_has_a_name_and_a_checkpoint(command_of, rung, capsys):
  with pytest.raises(SystemExit):
    command_of.main(["--rung", rung])
  line = capsys.readouterr().err.splitlines()[-1]
  assert "argument --rung: expected NAME=PATH, such as tall_1=" in line
  assert f"got '{rung}'" in line


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize("command_of", [figure1, wider, longer])
@pytest.mark.parametrize("checkpoint", ["runs/nowhere", "embedded:nobody"])
def test_a_checkpoint_that_is_not_there_is_a_single_line(
  command_of, checkpoint, tmp_path
):
  argv = [f"--work_dir={tmp_path}", f"--output_dir={tmp_path}"]
  argv += ["--group", "held_out", "--rung", f"tall_3={checkpoint}"]
  with pytest.raises(SystemExit, match="--rung NAME=CHECKPOINT") as caught:
    command_of.main(argv)
  assert checkpoint.removeprefix("embedded:") in str(caught.value)
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_point_that_was_made_again_stands_in_the_place_of_the_old_one():
  small, large = (
    figure1.Point(name, "held_out", size, size, {}, {}, {}, ())
    for name, size in (("small", 10), ("large", 20))
  )
  first = small._replace(group="skills")
  points = figure1.merged([large, first], small)
  assert points == [first, small, large]
  score = Score(figure1.PROMPT, "skill_sort", 0, 50.0)
  small = small._replace(steps={figure1.PROMPT: 9}, scores=(score,))
  again = small._replace(
    search={figure1.PROMPT: {"0.3": 1.0}},
    rates={figure1.PROMPT: 0.3},
    scores=(score._replace(score=60.0),),
  )
  points = [first, small, large]
  assert figure1.merged(points, again) == [first, again, large]
  for changes, message in (
    ({"parameters": 30}, "held_out with parameters = 10; the new point has 30"),
    (
      {"non_embedding_parameters": 9},
      "non_embedding_parameters = 10; .* has 9",
    ),
    ({"steps": {figure1.PROMPT: 8}}, "steps of prompt tuning = 9; .* has 8"),
    ({"steps": {}}, "steps of prompt tuning = 9; the new point has None"),
    (
      {"scores": (score._replace(seed=1),)},
      "scores of prompt tuning on skill_sort with seed 0 = 1; .* has None",
    ),
    ({"scores": (score, score._replace(task="t"))}, "on t with seed 0 = None"),
  ):
    with pytest.raises(
      SystemExit, match=f"{message}.*another --output_dir, or"
    ):
      figure1.merged(points, small._replace(**changes))


def test_a_point_of_something_else_leaves_the_files_as_they_are(
  tmp_path, monkeypatch
):
  points = figure1.read(FIGURE1)
  figure1.write(points, tmp_path)
  before = {path: path.read_bytes() for path in tmp_path.iterdir()}
  old = next(p for p in points if (p.rung, p.group) == ("tall_3", "topics"))
  other = old._replace(parameters=1)
  monkeypatch.setattr(figure1, "run", lambda *_: other)
  argv = ["--rung", "tall_3=embedded:tall_3", "--group", "topics"]
  with pytest.raises(SystemExit, match="has tall_3 on topics with parameters"):
    figure1.main([*argv, f"--output_dir={tmp_path}"])
  assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


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
  assert figure3d.known(folder) == points
  figure3d.write(points, tmp_path)
  table = (tmp_path / figure3d.TABLE).read_text()
  for name in (figure3d.TABLE, figure3d.RESULTS):
    assert (tmp_path / name).read_text() == (folder / name).read_text()
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


@pytest.fixture(name="adapted")
def make_adapted(tmp_path, monkeypatch):
  """A folder with Figure 3d, and a command that trains nothing.

  A rung's sweep finds what `found` has of it.
  """
  output = tmp_path / "output"
  points = figure3d.known(figure3d.HERE)
  figure3d.write(points, output)
  found = {}

  def read(path, models):
    return found[path.parts[-3]]

  monkeypatch.setattr(figure3d, "on_the_way", lambda name, folder: [])
  monkeypatch.setattr(figure3d.program, "main", lambda argv: 0)
  monkeypatch.setattr(figure3d, "read", read)

  def command_of(*rungs):
    words = [f"--work_dir={tmp_path}", f"--output_dir={output}", "--rung"]
    return figure3d.main([*words, *(f"{rung}=runs/{rung}" for rung in rungs)])

  return output, found, command_of


def of_rung_0(point, more=types.MappingProxyType({})):
  values = {**point.values, "rung": "tall_0", **more}
  return point._replace(cell=",".join(values.values()), values=values)


def test_a_rung_of_figure_3d_joins_the_others(adapted):
  output, found, command_of = adapted
  before = figure3d.known(output)
  found["tall_2"] = [
    p._replace(score=1.0) for p in before if p.values["rung"] == "tall_2"
  ]
  found["tall_0"] = [of_rung_0(point) for point in found["tall_2"]]
  assert not command_of("tall_2")
  after = figure3d.known(output)
  assert len(after) == len(before)
  for old, new in zip(before, after, strict=True):
    is_new = old.values["rung"] == "tall_2"
    assert new == (old._replace(score=1.0) if is_new else old)
  assert not command_of("tall_0")
  assert figure3d.known(output) == [*after, *found["tall_0"]]
  assert "| tall_0 | 600 | 1.0 ± 0.0 | 3 |" in (output / "table.md").read_text()


def test_a_failure_of_figure_3d_changes_no_file(adapted, monkeypatch):
  output, found, command_of = adapted
  before = {path: path.read_bytes() for path in output.iterdir()}
  points = figure3d.known(output)
  found["tall_0"] = [of_rung_0(points[0], {"@targets": "plain"})]
  with pytest.raises(SystemExit, match=r"tall_0 are over .*@targets.*--output"):
    command_of("tall_0")
  found["tall_0"] = [of_rung_0(points[0])]

  def fail(*_):
    raise ValueError("no picture")

  monkeypatch.setattr(sweep_report, "picture", fail)
  with pytest.raises(ValueError, match="no picture"):
    command_of("tall_0")
  assert {path: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("[{", "expected results of steps of LM adaptation; found"),
    ('[{"task": "t"}]', "cell: expected a text; found nothing"),
    (None, "a result over PROMPT_LENGTH; expected results over rung, steps of"),
  ],
)
def test_figure_3d_trains_nothing_beside_other_results(
  adapted, text, message, monkeypatch
):
  output, _, command_of = adapted
  if text is None:
    point = figure3d.known(output)[0]._replace(values={"PROMPT_LENGTH": "8"})
    text = json.dumps([point._asdict()])
  (output / figure3d.RESULTS).write_text(text)
  monkeypatch.setattr(figure3d.program, "main", lambda _: pytest.fail("trains"))
  with pytest.raises(SystemExit, match=message) as caught:
    command_of("tall_1")
  assert str(caught.value).endswith("Give another --output_dir.")
  assert "\n" not in str(caught.value)
