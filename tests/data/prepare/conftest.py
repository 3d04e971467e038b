"""Invented data in the official layouts."""

import gzip
import json
import pathlib

import pytest

PASSAGE = "Norvik lies at Lake Orn. Mira Holt bakes there."
MULTIRC = {
  "text": "<b>Sent 1: </b>Mira opened a bakery.<br>",
  "questions": [
    {
      "question": "Who opened it?",
      "idx": 0,
      "answers": [
        {"text": "Mira", "idx": 0, "label": 1},
        {"text": "Jonas", "idx": 1, "label": 0},
      ],
    },
    {
      "question": "What did she open?",
      "idx": 1,
      "answers": [{"text": "A bakery", "idx": 2, "label": 1}],
    },
  ],
}
RECORD = {
  "idx": 7,
  "source": "Invented",
  "passage": {
    "text": PASSAGE,
    "entities": [{"start": 0, "end": 5}, {"start": 25, "end": 33}],
  },
  "qas": [
    {
      "idx": 11,
      "query": "@placeholder sells bread.",
      "answers": [{"start": 25, "end": 33, "text": "Mira Holt"}],
    }
  ],
}
WSC = {
  "text": "Ana thanked Mira because she helped.",
  "target": {
    "span1_index": 2,
    "span1_text": "mira",
    "span2_index": 4,
    "span2_text": "she",
  },
}
WIC = {
  "word": "bank",
  "sentence1": "The bank closed.",
  "sentence2": "We sat on the bank.",
  "start1": 4,
  "end1": 8,
  "start2": 14,
  "end2": 18,
}
NLI = {"premise": "It rained.", "hypothesis": "It was wet."}
SUPER_GLUE = {
  "BoolQ": ({"question": "is orn a lake", "passage": PASSAGE}, [True, False]),
  "CB": (NLI, ["entailment", "contradiction", "neutral"]),
  "COPA": (
    {
      "premise": "It rained.",
      "choice1": "It was wet.",
      "choice2": "It was dry.",
      "question": "effect",
    },
    [0, 1],
  ),
  "RTE": (NLI, ["entailment", "not_entailment"]),
  "WiC": (WIC, [True, False]),
  "WSC": (WSC, [True, False]),
}
QUESTION = {
  "id": "q1",
  "question": "Where does Norvik lie?",
  "answers": [{"text": "Lake Orn", "answer_start": 15}],
}
MRQA = [
  {"header": {"dataset": "RACE", "split": "dev"}},
  {
    "context": f" {PASSAGE} ",
    "context_tokens": [["Norvik", 0], ["lies", 7]],
    "qas": [
      {
        "qid": "q1",
        "question": "Where? ",
        "question_tokens": [["Where", 0]],
        "answers": ["Lake Orn"],
        "detected_answers": [
          {
            "text": "Lake Orn",
            "char_spans": [[15, 22]],
            "token_spans": [[3, 4]],
          }
        ],
      }
    ],
  },
]


def write_lines(path: pathlib.Path, rows):
  """JSON lines without a newline after the last one, as some files come."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("\n".join(json.dumps(row) for row in rows))


def write_text(path: pathlib.Path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def write_super_glue(root):
  for folder, (row, labels) in SUPER_GLUE.items():
    for split, shift in (("train", 0), ("val", 1), ("test", 2)):
      rows = []
      for idx in range(len(labels)):
        extra = {} if split == "test" else {"label": labels[idx - shift]}
        rows.append({**row, "idx": idx, **extra})
      write_lines(root / folder / f"{split}.jsonl", rows)
  for split in ("train", "val", "test"):
    write_lines(
      root / "MultiRC" / f"{split}.jsonl", [{"idx": 3, "passage": MULTIRC}]
    )
    write_lines(root / "ReCoRD" / f"{split}.jsonl", [RECORD])
  # The idx of AX-b is a text.
  axb = {"sentence1": "It rained.", "sentence2": "It was wet.", "idx": "0"}
  write_lines(root / "AX-b/AX-b.jsonl", [{**axb, "label": "entailment"}])
  axg = {**NLI, "idx": 0, "label": "not_entailment"}
  write_lines(root / "AX-g/AX-g.jsonl", [axg])


def write_glue(root):
  cola = "gj04\t1\t\tIt rained.\ngj04\t0\t*\tRained it did was.\n"
  for split in ("train", "dev"):
    write_text(root / f"CoLA/{split}.tsv", cola)
    write_text(
      root / f"STS-B/{split}.tsv",
      "index\tsentence1\tsentence2\tscore\n0\tA cat.\tA dog.\t2.500\n",
    )
    # Quotes stand for themselves; a row that ends early is dropped.
    write_text(
      root / f"QQP/{split}.tsv",
      "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
      '5\t1\t2\tWhat is "Orn?\tWhere is Orn?\t0\n6\t3\t4\tcut off\n'
      "7\t5\t6\tWho is Mira?\tWho was Mira?\t1\n",
    )
  write_text(root / "CoLA/test.tsv", "index\tsentence\n0\tIt rained.\n")
  sts = "index\tsentence1\tsentence2\n0\tA cat.\tA dog.\n"
  write_text(root / "STS-B/test.tsv", sts)
  qqp = "id\tquestion1\tquestion2\n0\tWho?\tWhere?\n"
  write_text(root / "QQP/test.tsv", qqp)
  mnli = "index\tsentence1\tsentence2\tgold_label\n0\tIt rained.\tWet.\t{}\n"
  write_text(root / "MNLI/train.tsv", mnli.format("neutral"))
  pairs = "index\tsentence1\tsentence2\n0\tIt rained.\tWet.\n"
  for genre, label in (("matched", "entailment"), ("mismatched", "neutral")):
    write_text(root / f"MNLI/dev_{genre}.tsv", mnli.format(label))
    write_text(root / f"MNLI/test_{genre}.tsv", pairs)
  write_text(root / "AX/diagnostic.tsv", pairs)


def write_others(root):
  document = {
    "version": "1.1",
    "data": [
      {"title": "T", "paragraphs": [{"context": PASSAGE, "qas": [QUESTION]}]}
    ],
  }
  for split in ("train", "dev"):
    path = root / f"squad/{split}-v1.1.json"
    write_text(path, json.dumps(document))
  (root / "mrqa").mkdir()
  with gzip.open(root / "mrqa/RACE.jsonl.gz", "wt") as file:
    file.write("\n".join(map(json.dumps, MRQA)))
  block = "Ana thanked Mira because she helped.\nshe\nAna,Mira\nMira\n\n"
  for split in ("train", "test"):
    write_text(root / f"dpr/{split}.c.txt", block + block.replace("Ana", "Jo"))
    write_text(
      root / f"ag_news_csv/{split}.csv",
      '"3","Bakery, open","Bread ""sells"" well"\n"4","Orn","A chip"\n',
    )
    for label in ("neg", "pos"):
      path = root / f"aclImdb/{split}/{label}/0_3.txt"
      write_text(path, f"A {label} film.\n")
  write_text(root / "aclImdb/train/unsup/0_0.txt", "A film.")


@pytest.fixture
def official(tmp_path):
  """A directory with invented files of every official layout."""
  root = tmp_path / "official"
  write_super_glue(root / "superglue")
  write_glue(root / "glue_data")
  write_others(root)
  return root
