"""One line says how far training is, and of which runs the numbers are."""

import numpy as np
import pytest

from prompt_tuning.train.progress_bar import ProgressBar


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
