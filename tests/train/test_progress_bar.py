"""One line says how far training is, and of which runs the numbers are."""

import io

import numpy as np
import pytest

from prompt_tuning.train import progress_bar
from prompt_tuning.train.progress_bar import ProgressBar, ProgressLines


def shown(names, values, monkeypatch):
  """Return what stands beside a bar."""
  texts = []
  with ProgressBar(names, 10, 0, is_shown=False) as bar:
    monkeypatch.setattr(bar, "set_postfix_str", texts.append)
    bar.show("loss", values)
  return texts[-1]


@pytest.mark.parametrize(
  ("names", "values", "text"),
  [
    ([""], [0.36], "loss 0.36"),
    (["seed0", "seed1"], [0.36, 1.5], "seed0 seed1: loss 0.36 1.5"),
    (list("abcd"), [1, 2, 3, 6], "mean of 4 runs: loss 3"),
    (list("abcd"), [1, 2, np.nan, 6], "mean of 4 runs: loss 3 (1 lost)"),
    (list("abcd"), [np.nan] * 4, "mean of 4 runs: loss nan"),
  ],
)
def test_the_bar_says_whose_numbers_it_shows(names, values, text, monkeypatch):
  assert shown(names, values, monkeypatch) == text


def test_numbers_are_shown_beside_those_before(monkeypatch):
  texts = []
  with ProgressBar([""], 10, 0, is_shown=False) as bar:
    monkeypatch.setattr(bar, "set_postfix_str", texts.append)
    bar.show("loss", [2.5])
    bar.show("score", [50])
    bar.show("loss", [1.25])
  assert texts == ["loss 2.5", "loss 2.5, score 50", "loss 1.25, score 50"]


def test_what_is_cut_ends_in_a_sign():
  settings = {
    "n": 138,
    "total": 150,
    "elapsed": 26,
    "unit": " steps",
    "postfix": "mean of 51 runs: loss 0.36, score 97.2",
  }
  whole = ProgressBar.format_meter(ncols=200, **settings)
  assert whole.endswith(", mean of 51 runs: loss 0.36, score 97.2")
  cut = ProgressBar.format_meter(ncols=80, **settings)
  assert len(cut) == 80
  assert cut == f"{whole[:79]}…"
  in_notebook = ProgressBar.format_meter(ncols=None, **settings)
  assert "138/150" in in_notebook


@pytest.mark.parametrize(
  ("seconds", "rate"), [(4, "2.50 steps/s"), (400, "40.00 s/step")]
)
def test_slow_steps_are_spelled_in_english(seconds, rate):
  settings = {"n": 10, "total": 150, "unit": " steps"}
  line = ProgressBar.format_meter(ncols=200, elapsed=seconds, **settings)
  assert f", {rate}]" in line.replace("  ", " ")
  assert "s/ steps" not in ProgressBar.format_meter(elapsed=400, **settings)


def test_a_file_has_a_line_a_minute(monkeypatch, capsys):
  """pytest's standard error is no terminal either."""
  now = [0.0]
  monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
  with progress_bar.make(["a", "b"], 1_000, 100, is_shown=True) as bar:
    for step in range(400):
      now[0] += 0.5 if step < 200 else 2
      bar.update()
      if step % 10 == 9:
        bar.show("loss", [2.5, step])
  shown = capsys.readouterr().err
  assert "\r" not in shown
  lines = shown.splitlines()
  assert lines[0] == "110 of 1,000 steps, 2.00 steps/s, a b: loss 2.5 9"
  assert lines[1] == "230 of 1,000 steps, 2.00 steps/s, a b: loss 2.5 129"
  assert lines[-1] == "500 of 1,000 steps, 1.25 s/step, a b: loss 2.5 399"
  assert len(lines) <= 2 + now[0] / 60


def test_lines_that_say_nothing_new_are_not_written(capsys):
  with ProgressLines([""], 10, 10):
    pass
  with ProgressLines([""], 10, 0) as lines:
    lines.update()
    lines.show("loss", [1.5])
  with ProgressLines([""], 10, 0) as lines:
    lines.update()
  shown = capsys.readouterr().err.splitlines()
  assert [line.split(", ")[::2] for line in shown] == [
    ["1 of 10 steps", "loss 1.5"],
    ["1 of 10 steps"],
  ]


def test_where_a_bar_is_drawn(monkeypatch):
  monkeypatch.setattr(progress_bar.sys, "stderr", Terminal())
  assert isinstance(progress_bar.make([""], 10, 0, True), ProgressBar)


class Terminal(io.StringIO):
  """Standard error of a person."""

  def isatty(self):
    return True
