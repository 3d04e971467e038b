"""Prepared directories equal what TFDS itself makes of the same files."""

import gzip
import json
import os
import pathlib

import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import installed, spec
from prompt_tuning.data.catalog import text_classification
from prompt_tuning.data.prepare import prepare

SUPER_GLUE = "boolq cb copa multirc record rte wic wsc wsc.fixed axb axg"
GLUE = "cola stsb qqp mnli mnli_matched mnli_mismatched"


class LocalFiles:
  """In the place of TFDS's download manager: files that are here already."""

  downloaded_size = 0

  def __init__(self, answer):
    self.answer = answer

  def download(self, urls):
    del urls
    return self.answer

  download_and_extract = download

  def iter_archive(self, path):
    root = pathlib.Path(path)
    for file in sorted(root.rglob("*.txt")):
      with file.open("rb") as content:
        yield str(file.relative_to(root.parent)), content


def tfds_makes(name, answer, data_dir):
  """Let TFDS read the official files its own way."""
  builder = tfds.builder(name, data_dir=str(data_dir))
  builder._make_download_manager = lambda **_: LocalFiles(answer)
  tfds.disable_progress_bar()
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
  )
  return pathlib.Path(builder.data_dir)


def content(path):
  """A file's bytes; of the description, all but the order of the splits."""
  if path.name != "dataset_info.json":
    return path.read_bytes()
  described = json.loads(path.read_bytes())
  described["splits"].sort(key=lambda split: split["name"])
  return described


@pytest.fixture
def downloads(official):
  """TFDS name -> what its download manager would say."""
  race = official / "unpacked.jsonl"
  race.write_bytes(
    gzip.decompress((official / "mrqa/RACE.jsonl.gz").read_bytes())
  )
  files = {
    name: {split: str(official / pattern.format(split)) for split in splits}
    for name, pattern, splits in (
      ("squad", "squad/{}-v1.1.json", ("train", "dev")),
      ("dpr", "dpr/{}.c.txt", ("train", "test")),
    )
  }
  return {
    **{
      f"super_glue/{config}:1.0.2": str(official / "superglue")
      for config in SUPER_GLUE.split()
    },
    **{
      f"glue/{config}:2.0.0": str(official / "glue_data")
      for config in GLUE.split()
    },
    "glue/ax:2.0.0": str(official / "glue_data/AX/diagnostic.tsv"),
    "squad/v1.1:3.0.0": files["squad"],
    "mrqa/race:1.0.0": {"test": str(race)},
    "definite_pronoun_resolution:1.1.0": files["dpr"],
    "ag_news_subset:1.0.0": {"ag_news_csv": str(official)},
    "imdb_reviews/plain_text:1.0.0": str(official / "aclImdb"),
  }


def test_every_file_equals_what_tfds_writes(official, downloads, tmp_path):
  """Byte by byte: records in their order, features, labels, split counts."""
  made = {item.source for item in prepare([official], tmp_path / "ours")}
  older = {
    name.replace(":2.0.0", ":1.0.0") for name in downloads if "glue/" in name
  }
  assert made == set(downloads) | older
  for name, answer in downloads.items():
    theirs = tfds_makes(name, answer, tmp_path / "theirs")
    ours = installed.directory(tmp_path / "ours", name)
    names = set(os.listdir(theirs))
    assert set(os.listdir(ours)) == names | {installed.RECORD}, name
    for file in names:
      assert content(ours / file) == content(theirs / file), f"{name}: {file}"


def test_an_older_version_holds_the_same_rows(official, tmp_path):
  prepare([official / "glue_data"], tmp_path, only=["glue/cola"])
  rows = []
  for version in ("1.0.0", "2.0.0"):
    builder = tfds.builder(f"glue/cola:{version}", data_dir=str(tmp_path))
    assert str(builder.info.version) == version
    data = builder.as_dataset(split="train")
    rows.append([str(row) for row in data.as_numpy_iterator()])
  assert rows[0] == rows[1]
  assert len(rows[0]) == 2


def test_glue_as_jsonl(tmp_path):
  """Names or numbers for labels; those of the test split are hidden."""
  folder = tmp_path / "glue" / "MRPC"
  folder.mkdir(parents=True)
  pair = {"sentence1": "A.", "sentence2": "B."}
  for split, label in (("train", 1), ("val", "not_equivalent"), ("test", 1)):
    row = {**pair, "label": label, "idx": 4}
    (folder / f"{split}.jsonl").write_text(json.dumps(row))
  prepare([tmp_path / "glue"], tmp_path / "out")
  data = tfds.load("glue/mrpc:2.0.0", data_dir=str(tmp_path / "out"))
  labels = {
    split: [int(row["label"]) for row in rows.as_numpy_iterator()]
    for split, rows in data.items()
  }
  assert labels == {"train": [1], "validation": [0], "test": [-1]}


def test_datasets_that_tfds_lacks(tmp_path):
  """Labels count from 0 in JSONL and from 1 in the official CSV."""
  for dataset, text in (
    ("dbpedia", {"title": "Orn", "content": "A lake."}),
    ("amazon", {"text": "Fine."}),
    ("yahoo", {"title": "Orn", "content": "Why?", "answer": "A lake."}),
    ("sst5", {"sentence": "Fine ."}),
  ):
    folder = tmp_path / "jsonl" / dataset
    folder.mkdir(parents=True)
    row = json.dumps({"label": 4, **text})
    (folder / "train_partial.jsonl").write_text(row)
    folder = tmp_path / "csv" / f"{dataset}_csv"
    folder.mkdir(parents=True)
    third = ',"Why?"' if dataset == "yahoo" else ""
    if dataset != "sst5":
      (folder / "train.csv").write_text(f'5,"Orn"{third},"A lake."\n')
  trees = tmp_path / "csv" / "trees"
  trees.mkdir()
  (trees / "train.txt").write_text("(4 (2 Fine) (2 (2 -LRB-) (2 .)))\n")
  for form in ("jsonl", "csv"):
    prepare([tmp_path / form], tmp_path / f"{form}_out")
    for task in ("dbpedia_v100", "amazon_v100", "yahoo_v100", "sst5_v100"):
      name = spec.task(task).source
      # From the directory alone: no code of ours is needed to read it.
      data = tfds.load(name, data_dir=str(tmp_path / f"{form}_out"))
      row = next(data["train"].as_numpy_iterator())
      assert row["label"] == 4
      builder = tfds.builder(name, data_dir=str(tmp_path / f"{form}_out"))
      dataset = spec.task(task).dataset
      names = text_classification.CLASS_NAMES[dataset]
      assert tuple(builder.info.features["label"].names) == names
      texts = text_classification.TEXT_FEATURES[dataset]
      assert set(builder.info.features) == {"label", *texts}


def test_polarity_is_what_the_middle_class_leaves(tmp_path):
  """Of rows in five classes, or of the official file of two."""
  rows = [{"label": k, "text": f"{k + 1} stars"} for k in range(5)]
  folder = tmp_path / "five" / "amazon"
  folder.mkdir(parents=True)
  (folder / "test_partial.jsonl").write_text("\n".join(map(json.dumps, rows)))
  folder = tmp_path / "two" / "amazon_review_polarity_csv"
  folder.mkdir(parents=True)
  (folder / "test.csv").write_text('1,"Bad","1"\n2,"Good","5"\n')
  source = spec.task("amazon_polarity_v100").source
  found = {}
  for name in ("five", "two"):
    out = tmp_path / f"{name}_out"
    prepare([tmp_path / name], out)
    data = tfds.load(source, data_dir=str(out))["test"].as_numpy_iterator()
    found[name] = {row["text"].decode(): int(row["label"]) for row in data}
    assert (out / "amazon_review_full").exists() == (name == "five")
  assert found["five"] == {
    "1 stars": 0,
    "2 stars": 0,
    "4 stars": 1,
    "5 stars": 1,
  }
  assert found["two"] == {"Bad 1": 0, "Good 5": 1}


def test_races_own_files_and_a_question_per_line(tmp_path):
  options = ["Mira", "The boat", "Nobody", "All"]
  folder = tmp_path / "own" / "RACE" / "dev" / "high"
  folder.mkdir(parents=True)
  document = {
    **{"article": "A boat sank.", "questions": ["Who?", "What?"]},
    **{"options": [options, options[::-1]], "answers": ["A", "C"]},
  }
  (folder / "12.txt").write_text(json.dumps(document))
  line = {"article": "A boat sank.", "question": "Who?", "answer": "A"}
  folder = tmp_path / "lines" / "race"
  folder.mkdir(parents=True)
  (folder / "dev.jsonl").write_text(json.dumps({**line, "option": options}))
  source = spec.task("race_v100").source
  for name, count in (("own", 2), ("lines", 1)):
    prepare([tmp_path / name], tmp_path / f"{name}_out")
    data = tfds.load(source, data_dir=str(tmp_path / f"{name}_out"))
    rows = list(data["validation"].as_numpy_iterator())
    assert len(rows) == count
    (row,) = (row for row in rows if row["question"] == b"Who?")
    assert [row[k].decode() for k in "abcd"] == options
    assert row["label"] == 0


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("trees/train.txt", "(5 (2 It))", r"train.txt:1: expected a tree such as"),
    ("trees/dev.txt", "(4 (2 It) (2 works)", "expected a tree such as"),
    (
      "race/test.jsonl",
      '{"article": "a", "question": "q", "option": ["x"], "answer": "A"}',
      "a question and a list of 4 options",
    ),
    (
      "race/test.jsonl",
      '{"article": "a", "question": "q", "option": ["x", "y", "z", "u"], '
      '"answer": "E"}',
      "unknown label 'E'; expected one of A, B, C, D",
    ),
    (
      "RACE/test/high/1.txt",
      '{"article": "a", "questions": ["q"], "options": [], "answers": ["A"]}',
      "1, 0, 1 questions, options and answers",
    ),
  ],
)
def test_rows_that_are_none(tmp_path, name, text, message):
  path = tmp_path / "in" / name
  path.parent.mkdir(parents=True)
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    prepare([tmp_path / "in"], tmp_path / "out")
  assert not list((tmp_path / "out").glob("[!.]*"))


def boolq(folder, name, rows):
  folder.mkdir(parents=True, exist_ok=True)
  lines = [
    json.dumps({"question": q, "passage": "P", "label": True, "idx": i})
    for i, q in rows
  ]
  (folder / name).write_text("\n".join(lines))


def test_parts_make_one_split_and_are_recorded(tmp_path):
  source = tmp_path / "BoolQ"
  boolq(source, "train_partial.jsonl", [(0, "a"), (1, "b")])
  boolq(source, "train_partial_2.jsonl", [(0, "c")])  # counts from 0 again
  (item,) = prepare([source], tmp_path / "out")
  assert item.rows == {"train": 3}
  assert item.official["train"] == 9_427
  record = installed.record(tmp_path / "out", item.source)
  assert record["partial"] == ["train"]
  assert [(f["name"], f["rows"]) for f in record["files"]["train"]] == [
    ("train_partial.jsonl", 2),
    ("train_partial_2.jsonl", 1),
  ]
  data = tfds.load(item.source, split="train", data_dir=str(tmp_path / "out"))
  questions = {row["question"] for row in data.as_numpy_iterator()}
  assert questions == {b"a", b"b", b"c"}


def test_again_from_the_same_and_from_other_files(tmp_path):
  source, out = tmp_path / "BoolQ", tmp_path / "out"
  boolq(source, "val.jsonl", [(0, "a")])
  (first,) = prepare([source], out)
  (second,) = prepare([source], out)
  assert first.is_new
  assert not second.is_new
  boolq(source, "val.jsonl", [(0, "a"), (1, "b")])
  with pytest.raises(ValueError, match="exists already, made from other files"):
    prepare([source], out)
  assert installed.splits(out, first.source) == {"validation": 1}
  (third,) = prepare([source], out, overwrite=True)
  assert third.is_new
  assert third.rows == {"validation": 2}


def test_a_bad_file_leaves_nothing_behind(tmp_path):
  source, out = tmp_path / "BoolQ", tmp_path / "out"
  boolq(source, "train.jsonl", [(0, "a")])
  boolq(source, "val.jsonl", [(5, "a"), (5, "b")])
  with pytest.raises(ValueError, match=r"val.jsonl:2: id 5 is already in .*:1"):
    prepare([source], out)
  assert list(out.iterdir()) == []


def test_a_failing_writer_leaves_nothing_behind(tmp_path, monkeypatch):
  source, out = tmp_path / "BoolQ", tmp_path / "out"
  boolq(source, "val.jsonl", [(0, "a")])

  def fail(self, path, split):
    yield 0, {"question": "q", "passage": "p", "label": 1, "idx": 0}
    raise OSError("the disk is full")

  builder = tfds.builder_cls("super_glue")
  with monkeypatch.context() as patch:
    patch.setattr(builder, "_generate_examples", fail)
    with pytest.raises(OSError, match="the disk is full"):
      prepare([source], out)
  assert list(out.iterdir()) == []
  prepare([source], out)  # and nothing stands in the way of the next try


def test_only_what_is_asked_for(official, tmp_path):
  made = prepare([official], tmp_path, only=["glue/cola", "squad"])
  assert {item.source for item in made} == {
    "glue/cola:2.0.0",
    "glue/cola:1.0.0",
    "squad/v1.1:3.0.0",
  }
  with pytest.raises(ValueError, match="Did you mean 'glue/stsb'"):
    prepare([official], tmp_path, only=["glue/sst-b"])
