"""What experiments do with a sweep that is damaged, unfinished or another."""

import json
import pathlib
import re
import shlex
import shutil

import pytest

from experiments import collect, scoring
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
    (LENGTHS.read_text(), "LEARNING_RATE", "expected LEARNING_RATE, too"),
    (unfinished(), "PROMPT_LENGTH", r"output has \d+ cells that these .* lack"),
    (LENGTHS.read_text()[:99], "PROMPT_LENGTH", "results.json: Unterm|Expect"),
    ('{"cells": []}', "PROMPT_LENGTH", "not the report of a sweep"),
    ('{"points": [], "mean_over": []}', "PROMPT_LENGTH", "no cell is done"),
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
  assert re.search(message, capsys.readouterr().err)


def test_a_sweep_is_scored_when_all_of_it_is_done(tmp_path):
  with pytest.raises(SystemExit, match="expected the MODEL_DIR of a sweep"):
    scoring.cells(str(tmp_path))
  described = {"cells": {"a": {}, "b": {}}}
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
