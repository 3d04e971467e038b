"""The frozen model asked in words: what is evaluated, and the rows."""

import json
import pathlib

import pytest

from experiments.methods import words
from prompt_tuning.launch import command, flags

HERE = pathlib.Path(words.__file__).parent


@pytest.fixture
def evaluated(monkeypatch):
  """Jobs that the command would have done, each of which scores 50, 51, ..."""
  jobs = []

  def evaluate(argv):
    job = command.configure("eval", flags.parse("eval", argv[1:], ""))
    folder = pathlib.Path(job.output_dir, "inference_eval")
    folder.mkdir(parents=True, exist_ok=True)
    for name in job.evaluation.dataset.names:
      line = json.dumps({"step": 9_000, "accuracy": 50.0 + len(jobs)})
      with open(folder / f"{name}-metrics.jsonl", "w") as file:
        file.write(line + "\n")
    jobs.append(job)
    return 0

  monkeypatch.setattr(words.commands, "main", evaluate)
  return jobs


def test_every_seed_is_asked(evaluated, tmp_path, capsys):
  argv = ["--skills", "first", "last", "--seeds", "3", "5"]
  argv += ["--work_dir", str(tmp_path / "w"), "--output_dir", str(tmp_path)]
  assert words.main(argv) == 0
  contexts = [job.evaluation.context for job in evaluated]
  assert contexts[:2] == [None, None]
  asked = [(context.shots, context.seed) for context in contexts[2:]]
  assert asked == [(1, 3), (1, 5), (4, 3), (4, 5)]
  assert all(job.evaluation.dataset.split == "test" for job in evaluated)
  names = [job.evaluation.dataset.names for job in evaluated]
  assert names[0] == names[2] == ("skill_first", "skill_last")
  assert names[1] == ("instructed_skill_first", "instructed_skill_last")
  table = (tmp_path / "words.md").read_text()
  assert "| 4-shot in context | 54.0 | 54.0 | 54.5 |" in table
  assert table in capsys.readouterr().out


def test_what_is_written_down_is_what_was_scored():
  scores = json.loads((HERE / "words.json").read_text())
  table = (HERE / "words.md").read_text()
  assert words.table(scores) == table
  assert table in (HERE / "README.md").read_text()
  assert all(len(s) == 5 for s in scores["4-shot in context"].values())
