"""Bad input: every layout names file, place and what it expected."""

import gzip
import json

import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data.prepare import prepare


def edit_line(path, number, change):
  """Replace one JSON line (from 1) by what `change` makes of its object."""
  lines = path.read_text().split("\n")
  row = json.loads(lines[number - 1])
  change(row)
  lines[number - 1] = json.dumps(row)
  path.write_text("\n".join(lines))


def drop(*names):
  """Delete a field, given the way to it."""

  def change(row):
    *path, last = names
    for name in path:
      row = row[name]
    del row[last]

  return change


def put(value, *names):
  """Replace a field, given the way to it."""

  def change(row):
    *path, last = names
    for name in path:
      row = row[name]
    row[last] = value

  return change


QUESTION = ("passage", "questions", 0)
JSON_LINES = [
  ("BoolQ/train", 2, drop("passage"), r"train.jsonl:2: no field 'passage'"),
  ("BoolQ/train", 1, put("yes", "label"), "unknown label 'yes'; expected one"),
  ("BoolQ/val", 2, drop("label"), r"val.jsonl:2: no field 'label'"),
  ("BoolQ/val", 1, put(3, "question"), "'question': expected a text, got 3"),
  ("CB/val", 3, put("neutrale", "label"), r":3: unknown label 'neutrale'"),
  ("COPA/val", 1, put(2, "label"), "unknown label 2; expected one of choice1"),
  ("WiC/test", 1, put("x", "start1"), "'start1': expected an integer, got 'x'"),
  ("WSC/test", 2, drop("target", "span1_text"), "no field 'span1_text'"),
  ("MultiRC/val", 1, drop(*QUESTION, "answers", 1, "text"), "no field 'text'"),
  ("MultiRC/val", 1, put(2, *QUESTION, "answers", 1, "label"), "label 2"),
  (
    "MultiRC/val",
    1,
    put(0, *QUESTION, "answers", 1, "idx"),
    "id '3_0_0' is already in",
  ),
  ("ReCoRD/val", 1, drop("qas", 0, "answers"), "no field 'answers'"),
  (
    "ReCoRD/val",
    1,
    put(900, "passage", "entities", 0, "end"),
    "entity from 0 to 900 lies outside the passage",
  ),
  ("AX-g/AX-g", 1, put("maybe", "label"), "unknown label 'maybe'"),
]


@pytest.mark.parametrize(("file", "line", "change", "message"), JSON_LINES)
def test_super_glue(official, tmp_path, file, line, change, message):
  edit_line(official / f"superglue/{file}.jsonl", line, change)
  with pytest.raises(ValueError, match=message):
    prepare([official / "superglue"], tmp_path / "out")


@pytest.mark.parametrize("folder", ["BoolQ", "CB", "COPA"])
def test_classes_may_have_their_numbers(official, tmp_path, folder):
  """CB's and RTE's ended in an assertion of TFDS's."""
  config = f"super_glue/{folder.lower()}"
  datasets = []
  for numbered in (False, True):
    out = tmp_path / str(numbered)
    prepare([official / "superglue"], out, only=[config])
    builder = tfds.builder(config, data_dir=out)
    columns = [list(builder.as_dataset(split=s)) for s in builder.info.splits]
    datasets.append([[int(row["label"]) for row in rows] for rows in columns])
    names = builder.info.features["label"].names
    for path in (official / "superglue" / folder).glob("*.jsonl"):
      rows = [json.loads(line) for line in path.read_text().splitlines()]
      for row in rows:
        label = row.get("label", -1)
        is_name = isinstance(label, bool | str)
        row["label"] = names.index(str(label)) if is_name else label
      path.write_text("\n".join(map(json.dumps, rows)))
  assert datasets[0] == datasets[1]
  assert {-1, 0, 1} <= {label for labels in datasets[1] for label in labels}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "val.jsonl: the file has no rows"),
    (b'{"question": "q"\n', r"val.jsonl:1: not JSON"),
    (b"[1, 2]\n", r"val.jsonl:1: expected a JSON object"),
    (b'{"question": "\xe9"}', r"val.jsonl:1: not UTF-8: byte 0xe9"),
  ],
)
def test_files_that_are_no_json_lines(official, tmp_path, content, message):
  (official / "superglue/BoolQ/val.jsonl").write_bytes(content)
  with pytest.raises(ValueError, match=message):
    prepare([official / "superglue"], tmp_path / "out", only=["super_glue"])
  assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
  ("file", "old", "new", "message"),
  [
    ("CoLA/train.tsv", "\t1\t", "\t2\t", r"train.tsv:1: unknown label '2'"),
    ("STS-B/dev.tsv", "2.500", "high", r":2: field 'score': expected a number"),
    ("QQP/dev.tsv", "question2", "q2", r"dev.tsv:2: no field 'question2'"),
    ("MNLI/dev_matched.tsv", "entailment", "yes", "unknown label 'yes'"),
    ("STS-B/test.tsv", "0\tA cat.\tA dog.\n", "", "test.tsv: the file has no"),
  ],
)
def test_glue(official, tmp_path, file, old, new, message):
  path = official / "glue_data" / file
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))
  with pytest.raises(ValueError, match=message):
    prepare([official / "glue_data"], tmp_path / "out")


@pytest.mark.parametrize(
  ("file", "old", "new", "message"),
  [
    (
      "squad/dev-v1.1.json",
      '"answer_start": 15',
      '"answer_start": null',
      r"paragraphs\[0\].qas\[0\]: field 'answer_start': expected an integer",
    ),
    (
      "squad/dev-v1.1.json",
      '[{"text": "Lake Orn", "answer_start": 15}]',
      "[]",
      r"paragraphs\[0\].qas\[0\]: the question has no answer",
    ),
    (
      "squad/dev-v1.1.json",
      '"qas"',
      '"questions"',
      r"data\[0\].paragraphs\[0\]: no field 'qas'",
    ),
    ("squad/train-v1.1.json", "}", "", r"train-v1.1.json:1: not JSON"),
    ("dpr/test.c.txt", "Ana,Mira", "Ana", r"test.c.txt:1: expected a sentence"),
    ("ag_news_csv/test.csv", '"4"', '"5"', r"test.csv:2: unknown label 4"),
    ("ag_news_csv/test.csv", ',"A chip"', "", r"test.csv:2: 2 cells"),
    ("aclImdb/test/neg/0_3.txt", "A neg film.", "", "the file is empty"),
  ],
)
def test_others(official, tmp_path, file, old, new, message):
  path = official / file
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))
  with pytest.raises(ValueError, match=message):
    prepare(
      [path.parents[len(path.relative_to(official).parts) - 2]],
      tmp_path / "out",
    )


def test_mrqa(official, tmp_path):
  path = official / "mrqa/RACE.jsonl.gz"
  content = gzip.decompress(path.read_bytes()).decode()
  path.write_bytes(gzip.compress(content.replace('"qid"', '"id"').encode()))
  with pytest.raises(ValueError, match=r"RACE.jsonl:2: no field 'qid'"):
    prepare([official / "mrqa"], tmp_path / "out")
  hidden = content.replace('"answers": ["Lake Orn"]', '"answers": []')
  path.write_bytes(gzip.compress(hidden.encode()))
  with pytest.raises(ValueError, match=r"jsonl:2: the question has no answer"):
    prepare([official / "mrqa"], tmp_path / "out")
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(ValueError, match="not a complete gzip file"):
    prepare([official / "mrqa"], tmp_path / "out")
