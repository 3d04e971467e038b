"""What experiments do with a sweep that is damaged, unfinished or another."""

import json
import pathlib
import re
import shlex
import shutil

import pytest

from experiments import collect, scoring, transfer
from experiments.section7_interpretability.run import read_prompts
from experiments.table1_domain_shift import run as table1
from experiments.table2_paraphrase import run as table2
from experiments.table3_ensembling import run as table3
from prompt_tuning.launch import flags, sweep

ROOT = pathlib.Path(__file__).parents[2]
LENGTHS = ROOT / "experiments/figure3a_length/results.json"
STARTS = ROOT / "experiments/figure3b_initialisation/results.json"
FILES = (collect.RESULTS, collect.TABLE, collect.FIGURE)


@pytest.fixture(name="output")
def make_output(tmp_path):
  """A folder that has the results of Figure 3a."""
  folder = tmp_path / "output"
  folder.mkdir()
  for name in FILES:
    shutil.copy(LENGTHS.parent / name, folder / name)
  return folder


def collected(output, sweep, over="PROMPT_LENGTH"):
  return collect.main(
    [
      *("figure3a_length", "--over", over, "--output_dir", str(output)),
      *("--sweep", str(sweep)),
    ]
  )


def reported(folder, text):
  report = folder / "sweep" / "report"
  report.mkdir(parents=True)
  (report / collect.RESULTS).write_text(text)
  return report.parent


def unfinished():
  content = json.loads(LENGTHS.read_text())
  return json.dumps({**content, "points": content["points"][:6]})


def changed(**values):
  """Results of as many cells, of the same names; one run is another."""
  content = json.loads(LENGTHS.read_text())
  content["points"][4] |= values
  return json.dumps(content)


ANOTHER = (
  "output has results that these lack, 1 in all: cell INITIAL.*=1,SEEDS=1, "
  r"run '\w+' of \w+ with seed 1 and 96 parameters\. Give another --sweep or"
)
NO_CELLS = '{"axes": {}, "points": [], "mean_over": []}'


def test_a_sweep_s_results_are_collected(output, tmp_path):
  """Also where an older part of them is."""
  (output / collect.RESULTS).write_text(unfinished())
  content = json.loads(LENGTHS.read_text())
  sweep = reported(tmp_path, json.dumps(content))
  assert collected(output, sweep) == 0
  assert json.loads((output / collect.RESULTS).read_text()) == content
  assert (output / collect.TABLE).read_text() == collect.table(
    *collect.read(output), None
  )


@pytest.mark.parametrize(
  ("text", "over", "message"),
  [
    (STARTS.read_text(), "@init", "and those in .*output over"),
    (changed(seed=8), "PROMPT_LENGTH", ANOTHER),
    (changed(run="skill_sort"), "PROMPT_LENGTH", ANOTHER),
    (changed(task="skill_sort"), "PROMPT_LENGTH", ANOTHER),
    (changed(parameters=7), "PROMPT_LENGTH", ANOTHER),
    (LENGTHS.read_text(), "LEARNING_RATE", "expected LEARNING_RATE, too"),
    (
      unfinished(),
      "PROMPT_LENGTH",
      "28 of 30 cells are missing, such as INITI",
    ),
    (
      LENGTHS.read_text()[:99],
      "PROMPT_LENGTH",
      "expected the report of a sweep",
    ),
    (
      '{"cells": []}',
      "PROMPT_LENGTH",
      "axes: expected an object; found nothing",
    ),
    (NO_CELLS, "PROMPT_LENGTH", "no cell is done"),
    (None, "PROMPT_LENGTH", "has no results.json"),
  ],
)
def test_what_was_collected_stays_if_there_is_nothing_to_collect(
  output, tmp_path, capsys, text, over, message
):
  before = {name: (output / name).read_bytes() for name in FILES}
  sweep = reported(tmp_path, text) if text else tmp_path / "none"
  with pytest.raises(SystemExit):
    collected(output, sweep, over)
  assert {name: (output / name).read_bytes() for name in FILES} == before
  assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_runs_that_a_folder_has_not_yet_are_collected(output, tmp_path):
  content = json.loads(LENGTHS.read_text())
  content["points"].append({**content["points"][-1], "seed": 9})
  assert collected(output, reported(tmp_path, json.dumps(content))) == 0
  assert json.loads((output / collect.RESULTS).read_text()) == content


def test_a_folder_s_own_results_are_collected(output, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # where no sweep is in runs/
  before = {name: (output / name).read_bytes() for name in FILES[:2]}
  (output / collect.TABLE).unlink()
  words = ["figure3a_length", "--over", "PROMPT_LENGTH"]
  assert collect.main([*words, "--output_dir", str(output)]) == 0
  assert {name: (output / name).read_bytes() for name in FILES[:2]} == before


@pytest.mark.parametrize(
  ("experiment", "message"),
  [
    ("figure3x_length", "figure3x_length is no folder; expected one of exper"),
    ("ladder", "report has no results.json; expected the report of a sweep"),
  ],
)
def test_an_experiment_without_results_is_a_single_line(
  experiment, message, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit):
    collect.main([experiment, "--over", "PROMPT_LENGTH"])
  assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_sweep_is_scored_when_all_of_it_is_done(tmp_path):
  with pytest.raises(SystemExit, match="expected the MODEL_DIR of a sweep"):
    scoring.cells(str(tmp_path))
  described = {"axes": ["SEEDS"], "cells": {"a": {}, "b": {}}}
  (tmp_path / "sweep.json").write_text(json.dumps(described))
  for name in described["cells"]:
    folder = tmp_path / "cells" / name
    folder.mkdir(parents=True)
    if name == "b":
      with pytest.raises(SystemExit, match=r"1 of the 2 cells.*such as b"):
        scoring.cells(str(tmp_path))
    (folder / "cell.json").write_text("{}")
  found = scoring.cells(str(tmp_path))
  assert found == [tmp_path / "cells" / "a", tmp_path / "cells" / "b"]


def write_cells(folder, axes, cells):
  """Write a sweep that is done: values and runs of every cell."""
  described = {"axes": axes, "cells": {name: {} for name in cells}}
  folder.mkdir()
  (folder / "sweep.json").write_text(json.dumps(described))
  for name, (values, runs) in cells.items():
    own = [
      {
        **{"task": task, "seed": seed, "learning_rate": 0.3},
        **{"step": None, "score": None, "metrics": {}},
      }
      for task, seed in runs
    ]
    path = folder / "cells" / name
    path.mkdir(parents=True)
    content = {"cell": name, "values": values, "ending": "completed"}
    content |= {"parameters": 8, "runs": own}
    (path / "cell.json").write_text(json.dumps(content))
  return str(folder)


@pytest.mark.parametrize("text", ['{"cells": {', '{"cells": []}', "[]"])
def test_a_damaged_sweep_is_a_single_line(tmp_path, text):
  (tmp_path / "sweep.json").write_text(text)
  with pytest.raises(SystemExit, match=r"Give another --sweep\.$") as caught:
    scoring.cells(str(tmp_path))
  assert "\n" not in str(caught.value)


def test_a_sweep_without_the_axis_of_a_table_is_refused(tmp_path):
  cells = {"SEEDS=0": ({"SEEDS": "0"}, [("skill_last", 0)])}
  sweep_dir = write_cells(tmp_path / "sweep", ["SEEDS"], cells)
  for read, axis in ((transfer.cells, "@tuning"), (read_prompts, "@init")):
    message = f"a sweep over SEEDS; expected one over {axis}, too.*--sweep"
    with pytest.raises(SystemExit, match=message):
      read(sweep_dir)


def test_a_damaged_cell_is_a_single_line(tmp_path):
  cells = {"a": ({"@tuning": "model"}, [("skill_last", 0)])}
  sweep_dir = write_cells(tmp_path / "sweep", ["@tuning"], cells)
  (tmp_path / "sweep" / "cells" / "a" / "cell.json").write_text("{")
  with pytest.raises(SystemExit, match=r"Remove the cell's folder") as caught:
    transfer.cells(sweep_dir)
  assert "\n" not in str(caught.value)


def test_a_sweep_with_an_axis_of_tunings_is_scored(tmp_path):
  cells = {
    f"tuning={name}": ({"@tuning": name}, [("skill_last", 3)])
    for name in transfer.TUNINGS
  }
  sweep_dir = write_cells(tmp_path / "sweep", ["@tuning"], cells)
  found = transfer.cells(sweep_dir)
  assert [(c.tuning, c.task, c.seed) for c in found] == [
    ("model", "skill_last", 3),
    ("prompt", "skill_last", 3),
  ]


def runs(task, *seeds):
  return {}, [(task, seed) for seed in seeds]


@pytest.mark.parametrize(
  ("cells", "message"),
  [
    (
      {"a": runs("skill_last", 0)},
      "a has 1 runs of 1 seeds on skill_last; exp",
    ),
    ({"a": runs("skill_last", 0, 1, 2, 3)}, "4 runs of 4 seeds.*expected 5"),
    ({"a": runs("skill_last", 0, 1, 2, 3, 3)}, "has 5 runs of 4 seeds"),
    (
      {"a": ({}, [("skill_last", 0), ("skill_sort", 0)])},
      "2 runs of 1 seeds on skill_last, skill_sort; expected 5 runs of 5 seeds",
    ),
    (
      {name: runs("skill_last", *range(5)) for name in "ab"},
      "b and .*a are both of skill_last; expected one cell of each task",
    ),
    (
      {"a": runs("skill_last", *range(5))},
      "has skill_sort, and the sweep skill_last; expected all tasks",
    ),
  ],
)
def test_a_vote_is_of_five_seeds_on_the_tasks_that_are_there(
  tmp_path, monkeypatch, cells, message
):
  sweep_dir = write_cells(tmp_path / "sweep", ["MIXTURE_OR_TASK_NAME"], cells)
  there = tmp_path / scoring.RESULTS
  rows = json.dumps([{"task": "skill_last"}, {"task": "skill_sort"}])
  there.write_text(rows)
  monkeypatch.setattr(table3, "vote", lambda *_: pytest.fail("it votes"))
  with pytest.raises(SystemExit, match=f"{message}.*Give another --sweep"):
    table3.main(["--sweep", sweep_dir, "--output_dir", str(tmp_path)])
  assert there.read_text() == rows


def test_votes_join_those_of_the_same_tasks(tmp_path, monkeypatch):
  cells = {task: runs(task, *range(5)) for task in ("skill_last", "skill_sort")}
  sweep_dir = write_cells(tmp_path / "sweep", ["MIXTURE_OR_TASK_NAME"], cells)
  (tmp_path / scoring.RESULTS).write_text('[{"task": "skill_sort"}]')
  scores = dict.fromkeys(table3.COLUMNS, 50.0) | {"members": [50.0] * 5}
  monkeypatch.setattr(table3, "vote", lambda *_: scores)
  argv = ["--sweep", sweep_dir, "--output_dir", str(tmp_path)]
  assert not table3.main(argv)
  rows = json.loads((tmp_path / scoring.RESULTS).read_text())
  assert [row["task"] for row in rows] == list(cells)
  assert not table3.main(argv)
  (tmp_path / scoring.RESULTS).write_text('{"rows": []}')
  with pytest.raises(SystemExit, match=r"expected a list; found .'rows'"):
    table3.main(argv)


def test_rows_that_make_no_table_or_figure_change_no_file(tmp_path):
  def fail(*_):
    raise ValueError("no deviation of one seed")

  def draw(rows, path):
    path.write_text(f"{len(rows)} drawn")

  scoring.write([1, 2], str, draw, tmp_path)
  before = {path: path.read_text() for path in tmp_path.iterdir()}
  assert len(before) == 3
  for table, drawn in ((fail, draw), (str, fail)):
    with pytest.raises(ValueError, match="one seed"):
      scoring.write([3], table, drawn, tmp_path)
  assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_the_command_line_of_a_table_takes_the_paper_s_models(tmp_path):
  given = scoring.parser("", pathlib.Path("experiments/table9")).parse_args(
    [
      *("--sweep", "runs/paper/table9", "--output_dir", str(tmp_path)),
      *("--examples", "all", "--gin_file", "meshes/data_model.gin"),
      *("--gin", "MODEL_PARALLEL=2", "SCAN_LAYERS=True"),
    ]
  )
  scored = scoring.scoring(given)
  assert scored.examples is None
  assert scored.output_dir == tmp_path
  assert scored.settings == (
    "--gin_file=meshes/data_model.gin",
    *("--gin.MODEL_PARALLEL=2", "--gin.SCAN_LAYERS=True"),
  )


@pytest.mark.parametrize("table", [table1, table2, table3])
def test_the_page_scores_the_paper_s_models(table, monkeypatch):
  monkeypatch.chdir(ROOT)
  readme = (table.HERE / "README.md").read_text()
  last = readme.split("```sh\n")[-1].split("\n```")[0].replace("\\\n", " ")
  train, score = last.splitlines()
  argv = shlex.split(score)
  assert argv[:3] == ["python", "-m", table.__name__]
  parser = scoring.parser(None, table.HERE)
  given, others = parser.parse_known_args(argv[3:])
  assert set(others[:1]) <= {"--split", "--domain"}
  scored = scoring.scoring(given)
  small = scored._replace(checkpoint="embedded:ladder_1")  # its shape is read
  job = scoring.configured([pathlib.Path("a")], ["skill_last"], small)
  assert job.evaluation.num_examples is None
  assert job.evaluation.dataset.vocabulary_file == "sentencepiece.model"
  arguments = flags.parse("sweep", shlex.split(train)[2:], "")
  paper = sweep.configure(arguments)
  assert paper.model_dir == scored.sweep
  assert {cell.job.source.initial_checkpoint_path for cell in paper.cells} == {
    scored.checkpoint
  }
  mine = paper.cells[0].job.experiment.model
  assert job.model.scan_layers == mine.scan_layers


def test_table_1_has_the_domains_that_were_scored():
  rows = [
    {"scored_on": task} for task in ("mrqa_drop_v100", table1.TRAINED) * 2
  ]
  assert [name for name, *_ in table1.sets(rows).values()] == ["SQuAD", "DROP"]
  assert len(table1.DOMAINS) == 6
