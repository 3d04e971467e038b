"""`prompt-tuning report`: one page of a run, a comparison or a sweep."""

import html
import html.parser
import json
import re

import pytest

from prompt_tuning.core import files
from prompt_tuning.jobs import comparison, report, report_page
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.launch import main
from tests import browser
from tests.bucket_servers import put_tree

EVIL = "<script>alert(1)</script>"
VOID = ("meta", "br")


def written(folder, *argv, capsys):
  assert main.main(["report", str(folder), *argv]) == 0
  (path,) = capsys.readouterr().out.splitlines()
  with open(path, encoding="utf-8") as file:
    return file.read()


class Tags(html.parser.HTMLParser):
  """Insists that what opens closes."""

  def __init__(self):
    super().__init__()
    self.open, self.seen = [], set()

  def handle_starttag(self, tag, attrs):
    self.seen.add(tag)
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def check(text):
  """The page stands alone: no scripts, nothing from elsewhere."""
  tags = Tags()
  tags.feed(text)
  tags.close()
  assert not tags.open
  assert not tags.seen & {"script", "img", "link", "iframe"}
  assert not re.search(r"(?:src|href)=|url\(|@import", text)
  assert 'name="viewport"' in text
  assert "prefers-color-scheme: dark" in text


@pytest.fixture
def compared(tmp_path):
  scores = [Score("frozen model", "rte", None, 0.0)]
  scores += [Score(m, "rte", k, 50.0 + k) for m in ("a", EVIL) for k in (0, 2)]
  found = Comparison(
    tuple(scores),
    seconds={"a": 3.0},
    steps={"a": 10, EVIL: 10},
    parameters=1000,
    trained={"a": 10, EVIL: 20},
    frozen=True,
  )
  folder = tmp_path / "compared"
  folder.mkdir()
  comparison.write(folder, found)
  return folder


@pytest.fixture
def swept(tmp_path):
  root = tmp_path / "swept"
  for length in (1, 100):
    folder = root / "cells" / f"PROMPT_LENGTH={length},SEEDS=0"
    folder.mkdir(parents=True)
    run = {"task": "rte", "seed": 0, "learning_rate": 0.3, "step": 5}
    cell = {
      "cell": folder.name,
      "values": {"PROMPT_LENGTH": str(length), "SEEDS": "0"},
      "ending": "finished",
      "parameters": 96 * length,
      "runs": [run | {"score": 10.0 * length, "metrics": {}}],
    }
    (folder / "cell.json").write_text(json.dumps(cell))
  (root / "cells" / "PROMPT_LENGTH=7,SEEDS=0").mkdir()  # killed
  names = [f"PROMPT_LENGTH={length},SEEDS=0" for length in (1, 100, 7, 9)]
  text = json.dumps({"cells": {name: {} for name in names}})
  (root / "sweep.json").write_text(text)
  return root


def test_a_run(finished, tmp_path, capsys):
  text = written(finished, "--out", str(tmp_path / "r.html"), capsys=capsys)
  check(text)
  for part in ("Scores", "Curves", "Nearest words", "Predictions", "Settings"):
    assert f"<h2>{part}</h2>" in text
  for run in ("seed0", "seed1"):
    assert f"<td>{run}</td>" in text
  assert text.count("<polyline") + text.count("<circle") >= 4
  tables = [
    re.findall(r'<tr class="(\w+)">', part) for part in text.split("<details>")
  ]
  assert sum(map(len, tables)) > 0
  for kinds in tables:  # the wrong ones come first
    assert kinds == sorted(kinds, reverse=True)
  assert "PROMPT_LENGTH" in text


def test_a_comparison(compared, capsys):
  text = written(compared, capsys=capsys)
  check(text)
  assert EVIL not in text
  assert html.escape(EVIL) in text
  assert "<td>51.0 ± 1.4</td>" in text
  assert "which is unchanged" in text
  assert "trained parameters" in text


def test_a_sweep(swept, capsys):
  text = written(swept, capsys=capsys)
  check(text)
  assert "2 of 4 cells are done" in text
  for length in (7, 9):  # begun, and not begun
    assert f"PROMPT_LENGTH={length},SEEDS=0" in text
  assert "score against PROMPT_LENGTH" in text


def test_a_folder_that_is_no_run(tmp_path, capsys):
  for path in (tmp_path, tmp_path / "nowhere"):
    assert main.main(["report", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not a folder of `train`, `compare` or `sweep`" in line
  assert not list(tmp_path.iterdir())


def test_a_damaged_comparison_is_one_error(tmp_path, capsys):
  (tmp_path / "comparison.json").write_text('{"scores": 3}')
  assert main.main(["report", str(tmp_path)]) == 2
  assert "scores" in capsys.readouterr().err
  assert not (tmp_path / "report.html").exists()


def test_charts_leave_out_what_cannot_be_drawn():
  lines = [report_page.Line("x", [(0.0, 1.0), (10.0, float("nan"))])]
  assert report_page.chart(lines, "x", "y", log=True) == ""
  assert report_page.chart(lines, "x", "y").count("<circle") == 2  # and legend


def test_charts_of_a_training_that_diverged():
  """Numbers as large as floats can be, equal ones, and None for infinity."""
  for ys in ([1e17, 1e17], [-1e308, 1e308, None], [1.79e308], [0.0, 5e-324]):
    for log in (False, True):
      line = report_page.Line("x", [(10.0**k, y) for k, y in enumerate(ys)])
      drawn = report_page.chart([line], "step", "loss", log=log)
      at = re.findall(r'c[xy]="([^"]*)"', drawn.split("<figcaption")[0])
      assert len(at) == 2 * sum(y is not None for y in ys)
      assert all(0 <= float(place) <= 640 for place in at)
      assert not re.search("nan|inf", drawn)
      assert max(map(len, re.findall(r">([^<]*)</text>", drawn))) < 20
  drawn = report_page.bars({"a": float("nan"), "b": 1e308}, "score")
  assert re.findall(r'width="([\d.]+)"', drawn) == ["0.0", "340.0"]


@pytest.mark.parametrize(
  ("target", "prediction", "is_right"),
  [
    (["London", "Paris"], "paris", True),
    (["London", "Paris"], "Rome", False),
    ({"value": ["London", "Paris"], "group": [1, 2]}, "the Paris", True),
    ({"value": 1, "group": [1, 2]}, "written", True),
    ({"value": 1, "group": [1, 2]}, "other", False),
    (1, "written", True),
    ("yes", "no", False),
    (3.0, "3", True),
    (3.0, "none", False),
  ],
)
def test_every_allowed_answer_is_right(tmp_path, target, prediction, is_right):
  texts = {"inputs_pretokenized": "?", "targets_pretokenized": "written"}
  line = {"input": texts, "target": target, "prediction": prediction}
  (tmp_path / "task-000001.jsonl").write_text(json.dumps(line))
  (page,) = [*report._predictions(tmp_path)][1:]
  kind = "right" if is_right else "wrong"
  assert f'<tr class="{kind}">' in page


@pytest.mark.parametrize(
  ("example", "kind"),
  [
    ({"targets_pretokenized": "Bob", "label": 0}, "right"),
    ({"targets_pretokenized": "Ann", "label": 0}, "wrong"),
    ({"targets_pretokenized": "Ann"}, "right"),  # no such row: texts compare
  ],
)
def test_the_tasks_own_metric_judges(tmp_path, caplog, example, kind):
  line = {"input": {"inputs_pretokenized": "?", **example}, "target": 0}
  text = json.dumps({**line, "prediction": "Ann"})
  name = "super_glue_wsc_v102_simple_eval"
  others = ["[1]", "{", '{"input": 1, "target": 0, "prediction": ""}', "{}"]
  path = tmp_path / f"{name}-000001.jsonl"
  path.write_text("\n".join([*others, text, text]))
  (page,) = [*report._predictions(tmp_path)][1:]
  assert page.count(f'<tr class="{kind}">') == page.count("<tr class=") == 2
  said = caplog.text.count("cannot judge the predictions (KeyError: 'label')")
  assert said == ("label" not in example)


def test_a_comparison_in_a_bucket_has_its_trainings(compared, finished, gs):
  root = gs.folder()
  put_tree(compared, root)
  put_tree(finished / "bundles", f"{root}/a/b/bundles")
  path = report.write(root)
  text = files.path(path).read_bytes().decode()
  assert "<summary>a/b</summary>" in text
  assert "<h2>Cost and origin</h2>" in text


@browser.needed
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it(compared, swept, finished, tmp_path, dark):
  """All kinds of pages, on a phone and a desk: no line beyond the screen."""
  folders = {"run": finished, "comparison": compared, "sweep": swept}
  pages = tmp_path / "pages"
  pages.mkdir()
  for name, folder in folders.items():
    report.write(folder, pages / f"{name}.html")
  facts = browser.look(pages, [f"{name}.html" for name in folders], dark=dark)
  browser.check(facts, dark, contrast=4.5)
  assert all(fact["charts"] >= 1 for fact in facts)
