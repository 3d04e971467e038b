"""Real rows through the real preprocessors, against a second rendering.

The rendering here is plain Python, written from the published description of
the text forms. SuperGLUE's files are read by the installed TFDS builder itself.
"""

import hashlib
import itertools
import json
import re
import string

import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import spec

ROWS = 400


def fields(name, *keys):
  """`name key1: text1 key2: text2`."""
  return lambda row: " ".join([name, *(f"{k}: {row[k]}" for k in keys)])


def multirc(row):
  text = fields("multirc", "question", "answer", "paragraph")(row)
  for old, new in (("<br>", " "), ("<b>", ""), ("</b>", "")):
    text = text.replace(old, new)
  return text


def record(row):
  lines = row["passage"].split("\n@highlight\n")
  passage = lines[0]
  for line in lines[1:]:
    passage += (" " if passage[-1] in ".?!\"'" else ". ") + line
  entities = ", ".join(row["entities"])
  query = row["query"]
  return f"record query: {query} entities: {entities} passage: {passage}"


def wsc(row):
  words = row["text"].split(" ")
  assert words[row["span2_index"]] == row["span2_text"]
  words[row["span2_index"]] = f"*{row['span2_text']}*"
  return "wsc: " + " ".join(words)


def axb(row):
  return f"rte hypothesis: {row['sentence2']} premise: {row['sentence1']}"


# Data set -> (folder, file, inputs).
SUPER_GLUE = {
  "boolq": ("BoolQ", "val", fields("boolq", "passage", "question")),
  "cb": ("CB", "train", fields("cb", "hypothesis", "premise")),
  "copa": (
    *("COPA", "val"),
    fields("copa", "choice1", "choice2", "premise", "question"),
  ),
  "multirc": ("MultiRC", "val", multirc),
  "record": ("ReCoRD", "train_sample", record),
  "rte": ("RTE", "test", fields("rte", "hypothesis", "premise")),
  "wic": ("WiC", "val", fields("wic", "sentence1", "sentence2", "word")),
  "axb": ("AX-b", "AX-b", axb),
  "axg": ("AX-g", "AX-g", fields("rte", "hypothesis", "premise")),
}
# Data set -> (file, inputs).
GLUE = {
  "cola": ("CoLA/val.jsonl", fields("cola", "sentence")),
  "sst2": ("SST-2/val.jsonl", fields("sst2", "sentence")),
  "mrpc": ("MRPC/val.jsonl", fields("mrpc", "sentence1", "sentence2")),
  "qqp": ("QQP/val_partial.jsonl", fields("qqp", "question1", "question2")),
  "stsb": ("STS-B/val.jsonl", fields("stsb", "sentence1", "sentence2")),
  "qnli": ("QNLI/val.jsonl", fields("qnli", "question", "sentence")),
  "mnli": ("MNLI/val_partial.jsonl", fields("mnli", "hypothesis", "premise")),
}


def official_rows(shared_data, config, folder, file, limit=ROWS):
  """Read a SuperGLUE file with the TFDS builder's own generator."""
  builder = tfds.builder(f"super_glue/{config}:1.0.2", data_dir="no_such_dir")
  path = shared_data / "superglue" / folder / f"{file}.jsonl"
  split = {"val": "validation"}.get(file.split("_")[0], file.split("_")[0])
  split = "test" if split.startswith("AX") else split
  generated = builder._generate_examples(path, split)
  return [row for _, row in itertools.islice(generated, limit)]


def json_rows(path, limit=ROWS):
  with open(path, encoding="utf-8") as file:
    return [json.loads(line) for line in itertools.islice(file, limit)]


@pytest.mark.parametrize("dataset", SUPER_GLUE)
def test_super_glue(render, shared_data, dataset):
  folder, file, inputs_of = SUPER_GLUE[dataset]
  rows = official_rows(shared_data, dataset, folder, file)
  if dataset == "record":
    rows = [{**r, "target": a} for r in rows for a in r["answers"]]
    expected = [r["target"] for r in rows]
    # One query becomes one example per answer: render each query once.
    queries = {r["idx"]["query"]: r for r in rows}.values()
    given = [{k: v for k, v in r.items() if k != "target"} for r in queries]
  else:
    given = rows
    expected = ["<unk>" if r["label"] == -1 else str(r["label"]) for r in rows]
  inputs = [inputs_of(row) for row in rows]
  tasked = render(f"super_glue_{dataset}_v102", given)
  assert [e["inputs"] for e in tasked] == inputs
  assert [e["targets"] for e in tasked] == expected
  taskless = render(f"taskless_super_glue_{dataset}_v102", given)
  assert [e["inputs"] for e in taskless] == [i.split(" ", 1)[1] for i in inputs]
  assert [e["targets"] for e in taskless] == expected


def test_super_glue_record_has_the_published_passage_form(render, shared_data):
  rows = official_rows(shared_data, "record", "ReCoRD", "train_sample")
  assert any("\n@highlight\n" in row["passage"] for row in rows)
  for example in render("taskless_super_glue_record_v102", rows):
    assert example["inputs"].startswith("query: ")
    assert "@placeholder" in example["inputs"]
    assert "@highlight" not in example["inputs"]
    assert example["targets"] in example["answers"]


# sha256 of the two inputs that the published code lists by hand, for WSC texts
# that disagree with their own index; the texts themselves may not be kept here.
# Punctuation is glued to the pronoun:
WSC_GLUED = "af5e2ba4c19dc748e1373adbad776a63db06b469085040aaaa7fcd6a9b22ad41"
# The index is one too small:
WSC_SHIFTED = "baf4c28bc8c5587372bd0d92cf9bae9993c4623553db522d5f440b8c6ecde405"


@pytest.mark.parametrize("file", ["train", "val", "test"])
def test_wsc(render, shared_data, file):
  rows = official_rows(shared_data, "wsc.fixed", "WSC", file, limit=None)
  examples = render("super_glue_wsc_v102_simple_eval", rows)
  assert len(examples) == len(rows)
  irregular = []
  for row, example in zip(rows, examples, strict=True):
    assert example["targets"] == row["span1_text"]
    assert example["label"] == {"False": 0, "True": 1}.get(row["label"], -1)
    if row["text"].split(" ")[row["span2_index"]] == row["span2_text"]:
      assert example["inputs"] == wsc(row)
    else:
      irregular.append(example["inputs"])
  digests = {hashlib.sha256(text.encode()).hexdigest() for text in irregular}
  expected = {
    "train": (3, {WSC_GLUED}),  # one text in three rows
    "val": (1, {WSC_SHIFTED}),
    "test": (0, set()),
  }
  assert (len(irregular), digests) == expected[file]


def test_wsc_trains_on_correct_referents_only(render, shared_data):
  rows = official_rows(shared_data, "wsc.fixed", "WSC", "train", limit=None)
  examples = render("taskless_super_glue_wsc_v102_simple_train", rows)
  assert len(examples) == 259  # the paper's count
  assert {e["label"] for e in examples} == {1}


@pytest.mark.parametrize("dataset", GLUE)
def test_glue(render, shared_data, dataset):
  file, inputs_of = GLUE[dataset]
  rows = json_rows(shared_data / "glue" / file)
  words = spec.task(f"glue_{dataset}_v002").label_words
  inputs = [inputs_of(row) for row in rows]
  tasked = render(f"glue_{dataset}_v002", rows)
  assert [e["inputs"] for e in tasked] == inputs
  if dataset == "stsb":
    # Python rounds halves to even too; float32 as TensorFlow's label.
    expected = [f"{round(row['label'] * 5) / 5:.1f}" for row in rows]
  else:
    expected = [
      words[row["label"]] if isinstance(row["label"], int) else row["label"]
      for row in rows
    ]
  assert [e["targets"] for e in tasked] == expected
  taskless = render(f"taskless_glue_{dataset}_v200", rows)
  assert [e["inputs"] for e in taskless] == [i.split(" ", 1)[1] for i in inputs]
  assert [e["idx"] for e in taskless] == [row["idx"] for row in rows]


def padded(text):
  """Blanks around ASCII punctuation, runs of blanks made one."""
  spaced = "".join(f" {c} " if c in string.punctuation else c for c in text)
  return re.sub(r"[ \t\n\r\f\v]+", " ", spaced)


def test_squad(render, shared_data):
  with open(shared_data / "squad" / "dev_partial.json") as file:
    articles = json.load(file)["data"]
  rows = [
    {
      "id": qa["id"],
      "title": "",
      "context": paragraph["context"],
      "question": qa["question"],
      "answers": {
        "text": [a["text"] for a in qa["answers"]],
        "answer_start": [a["answer_start"] for a in qa["answers"]],
      },
    }
    for article in articles
    for paragraph in article["paragraphs"]
    for qa in paragraph["qas"]
  ][:ROWS]
  examples = render("squad_v010_allanswers", rows)
  for row, example in zip(rows, examples, strict=True):
    question, context = padded(row["question"]), padded(row["context"])
    inputs = re.sub(" +", " ", f"question: {question} context: {context}")
    assert example["inputs"] == inputs
    assert example["answers"] == [padded(t) for t in row["answers"]["text"]]
    assert example["targets"] == example["answers"][0]
    assert example["id"] == row["id"]


def test_mrqa(render, shared_data):
  path = shared_data / "mrqa" / "DuoRC" / "val_partial.mrqa.jsonl"
  builder = tfds.builder("mrqa/duo_rc:1.0.0", data_dir="no_such_dir")
  pairs = builder._generate_examples(path, "test")
  rows = [row for _, row in itertools.islice(pairs, ROWS)]
  examples = render("mrqa_duo_rc_v100", rows)
  assert len(examples) == len(rows) > 100
  for row, example in zip(rows, examples, strict=True):
    question, context = padded(row["question"]), padded(row["context"])
    inputs = re.sub(" +", " ", f"question: {question} context: {context}")
    assert example["inputs"] == inputs
    assert example["answers"] == [padded(a) for a in row["answers"]]


def test_relations(render, shared_data):
  rows = json_rows(shared_data / "relation/semeval2010_task8/test.jsonl")
  names = spec.task("semeval2010_task8_v100").label_words
  written = [
    {
      "text": " ".join(row["token"]),
      "subject": row["h"]["name"],
      "object": row["t"]["name"],
      "label": names.index(row["relation"]),
    }
    for row in rows
  ]
  examples = render("taskless_semeval2010_task8_v100", written)
  for row, example in zip(written, examples, strict=True):
    text = fields("", "text", "subject", "object")(row).removeprefix(" ")
    assert example["inputs"] == text
    assert example["targets"] == names[row["label"]]


@pytest.mark.parametrize(
  ("dataset", "file", "keys"),
  [
    ("ag_news", "agnews/test.jsonl", ("title", "description")),
    ("dbpedia", "dbpedia/test_partial.jsonl", ("title", "content")),
    ("imdb", "imdb/val_partial.jsonl", ("text",)),
    ("amazon", "amazon/test_partial.jsonl", ("text",)),
  ],
)
def test_text_classification(render, shared_data, dataset, file, keys):
  rows = json_rows(shared_data / "textcls" / file)
  examples = render(f"taskless_{dataset}_v100", rows)
  words = spec.task(f"{dataset}_v100").label_words
  for row, example in zip(rows, examples, strict=True):
    assert example["inputs"] == fields("", *keys)(row).removeprefix(" ")
    assert example["targets"] == words[row["label"]]
