"""Figure 4 and published prompts: results make tables and figures again."""

import json
import pathlib

import pytest

from experiments.figure4_methods import run as figure4
from experiments.paper import costs, dry_run
from experiments.published_prompts import run as published
from experiments.superglue import run as superglue
from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.core import embedded
from prompt_tuning.launch import sweep
from prompt_tuning.tuners import discovery

ROOT = pathlib.Path(__file__).parents[2]
# Folders of many cells, whose sweeps other tests build; `make paper` has all.
LARGE = (
  *("figure1_scale", "figure3a_length", "figure3b_initialisation"),
  *("figure3c_pretraining", "figure3d_adaptation", "table4_parameters"),
)


def read(folder):
  path = ROOT / "experiments" / folder
  return (
    json.loads((path / "results.json").read_text()),
    (path / "table.md").read_text(),
    (path / "README.md").read_text(),
  )


def test_figure_4(tmp_path, same_picture):
  content, table, readme = read("figure4_methods")
  rows = content["rows"]
  assert figure4.table(rows) == table
  assert table.split("\n\n")[0].strip() in readme
  figure4.draw(rows, tmp_path / "figure.png")
  same_picture(tmp_path / "figure.png", figure4.HERE / "figure.png")
  assert content["left_out"] == []
  ours = [
    kind
    for kind in discovery.methods().values()
    if kind.__module__.startswith("prompt_tuning.")
  ]
  # Later methods appear when it is run again.
  assert len({row["method"] for row in rows}) >= 20
  assert len(ours) >= 17


def test_counts_of_figure_4_follow_from_shapes(monkeypatch):
  """By hand, of T5 1.1 small: 8 layers a stack, 6 heads of 64, width 512."""
  monkeypatch.chdir(ROOT)
  content, *_ = read("figure4_methods")
  joined, width, layers = 6 * 64, 512, 8
  expected = {
    "prompt": 100 * width,
    "prefix": 2 * 100 * joined * 3 * layers,
    "lora": 2 * 8 * (width + joined) * 3 * layers,
    "ia3": 2 * joined * 3 * layers + 1_024 * 2 * layers,
    "norms": (2 * layers + 3 * layers + 2) * width,
    "warp": (5 + 5 + 2) * width,
  }
  small = {
    row["method"]: row["trained"]
    for row in content["rows"]
    if row["size"] == "small"
  }
  assert {name: small[name] for name in expected} == expected
  counted = {row["size"]: row for row in figure4.count("paper", figure4.PROMPT)}
  assert counted["xxl"]["trained"] == 409_600
  assert counted["xxl"]["model"] == 11_135_332_352


def test_every_published_prompt_has_the_card_of_the_table():
  rows, table, readme = read("published_prompts")
  assert published.table(rows) == table
  assert table in readme
  assert [row["name"] for row in rows] == list(
    dict.fromkeys(row["name"] for row in rows)
  )
  assert {row["name"] for row in rows} == set(embedded.prompt_names())
  for row in rows:
    folder = embedded.prompt(f"embedded:prompts/{row['name']}")
    saved = deltas.read(folder)
    scores = {name: row[name] for name in ("validation", "test")}
    assert saved.about["scores"] == pytest.approx(scores)
    assert saved.about["task"] == row["task"]
    card = (pathlib.Path(folder) / "README.md").read_text()
    assert f"- backbone: {saved.about['backbone']}" in card
    assert f"- score, test: {row['test']:.1f}" in card
    assert f"- checkpoint: {row['model']}" in card
    start, rate = {
      "embedded:ladder_1": (9_000, "0.3"),
      "embedded:tall_3": (18_000, "1.0"),
    }[row["model"]]
    assert (
      f"- steps: {row['step'] - start}, after the model's {start:,}" in card
    )
    # Of the gin files, not what a method has by default.
    method, settings = saved.about["method"], saved.about["settings"]
    assert method["encoder_init"]["population"] == 3996
    assert settings["learning rate"] == rate
    assert settings["examples per step"] == "8"
    assert settings["prompt length"] == "8"
    assert method["encoder_length"] == 8


def test_a_card_says_how_its_run_was_trained():
  tuners = [{"class": "Prompt", "encoder_length": k} for k in (5, 8)]
  run = {
    "start_step": 9_000,
    "tuners": tuners,
    "runs": [{"learning_rate": 0.1}, {"learning_rate": 0.3}],
    "data": {"batch_size": 16},
  }
  how = published.trained({"run": run, "run_index": 1}, 9_400)
  one = published.Best("skill_sort", None, how, 2, 3, 90.0, 80.0)
  file = "experiments/published_prompts/x.gin"
  card = published.card(one, published.Source(file, "embedded:x", "x_"))
  assert card["method"] == tuners[1]
  assert card["settings"] == {
    "checkpoint": "embedded:x",
    "prompt length": "8",
    "learning rate": "0.3",
    "steps": "400, after the model's 9,000",
    "examples per step": "16",
    "seed": "2, the best of 3 on the validation split",
    "trained by": f"prompt-tuning compare --gin_file={file}, in a checkout of "
    "the project",
  }


@pytest.mark.parametrize(("rows", "complete"), [(250, True), (3, False)])
def test_a_part_of_a_test_split_is_written_apart(rows, complete, tmp_path):
  """CB's test split has 250 rows; one answer here is no label."""
  task = "taskless_super_glue_cb_v102"
  answers = tmp_path / "answers" / task
  answers.mkdir(parents=True)
  lines = [
    {"inputs": {"idx": number}, "prediction": "neutral"}
    for number in range(rows)
  ]
  lines[-1]["prediction"] = "perhaps"
  path = answers / f"{task}-predict.jsonl-00000-of-00001"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  path.with_name(f"{path.name}.COMPLETED").touch()
  found = superglue.official(task, answers, tmp_path / "submission")
  legal = round(100 * (rows - 1) / rows, 1)
  assert found == {
    "file": "CB.jsonl",
    "answers": rows,
    "legal": legal,
    "complete": complete,
  }
  folder = "submission" if complete else "incomplete"
  (file,) = tmp_path.rglob("CB.jsonl")
  assert file.parent.name == folder
  labels = [json.loads(line)["label"] for line in file.read_text().splitlines()]
  assert labels == ["neutral"] * (rows - 1) + ["entailment"]


@pytest.mark.parametrize("scale", ["ladder", "paper"])
def test_superglue_answers_as_infer_does(scale, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  argv = [
    f"--gin_file=experiments/superglue/infer_{scale}.gin",
    "--gin.PROMPT_FILE='runs/1'",
    "--gin.INFER_OUTPUT_DIR='runs/never'",
    "--gin.MIXTURE_OR_TASK_NAME='taskless_super_glue_axb_v102'",
    "--dry_run",
  ]
  assert dry_run.program.main(["infer", *argv]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
  "name", [name for name in dry_run.folders() if name not in LARGE]
)
def test_the_paper_s_scale_can_be_built(name, monkeypatch, capsys):
  """With the paper's batches: 32 rows for a prompt, 2^16 tokens for a model."""
  jobs, configure = [], sweep.configure

  def kept(*given):
    jobs.append(configure(*given))
    return jobs[-1]

  monkeypatch.setattr(sweep, "configure", kept)
  monkeypatch.chdir(ROOT)
  assert dry_run.program.main(dry_run.arguments(name)) == 0
  assert "chip-hours" in capsys.readouterr().out
  (job,) = jobs
  for experiment in (cell.job.experiment for cell in job.cells):
    dataset = experiment.dataset
    tokens = dataset.batch_size * dataset.lengths["inputs"]
    assert (dataset.batch_size if experiment.tuners else tokens) in (32, 2**16)


def test_costs_cover_every_folder_that_trains():
  known = json.loads((ROOT / "experiments/paper/costs.json").read_text())
  assert sorted(known) == costs.experiments()
  # 3 seeds of 128 rows of 512 tokens, by the plan of a step of 32.
  plans = json.loads((ROOT / "experiments/plans/results.json").read_text())
  step = costs.chip_seconds(plans["xxl/model/v5p"])
  models = 3 * 30_000 * step / 3_600 * 4
  prompts = 3 * 30_000 * costs.chip_seconds(plans["xxl/prompt/v5p"]) / 3_600
  hours = known["table1_domain_shift"]["chip_hours"]["xxl"]["v5p"]
  assert hours == pytest.approx(models + prompts)
  # Two tasks; models see as many tokens per batch, a prompt's rows are shorter.
  hours = known["table2_paraphrase"]["chip_hours"]["xxl"]["v5p"]
  prompts *= (256 + 100) / (512 + 100)
  assert hours == pytest.approx(2 * (models + prompts))
