"""Submission files in the leaderboards' own formats."""

import json

import pytest

from prompt_tuning.data import submission


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def write(tmp_path, dataset, predictions, examples, **options):
  name = f"taskless_super_glue_{dataset}_v102"
  if dataset == "wsc":
    name = "taskless_super_glue_wsc_v102_simple_eval"
  return submission.write(name, predictions, examples, str(tmp_path), **options)


def indexed(*numbers):
  return [{"idx": number} for number in numbers]


@pytest.mark.parametrize(
  ("dataset", "file", "predictions", "labels"),
  [
    ("boolq", "BoolQ.jsonl", ["True", "False"], ["true", "false"]),
    ("cb", "CB.jsonl", ["neutral", "entailment"], ["neutral", "entailment"]),
    ("copa", "COPA.jsonl", ["choice2", "choice1"], [1, 0]),
    ("rte", "RTE.jsonl", ["not_entailment"] * 2, ["not_entailment"] * 2),
    ("wic", "WiC.jsonl", ["False", "True"], ["false", "true"]),
    ("axb", "AX-b.jsonl", ["entailment"] * 2, ["entailment"] * 2),
    ("axg", "AX-g.jsonl", ["entailment"] * 2, ["entailment"] * 2),
  ],
)
def test_super_glue_labels(tmp_path, dataset, file, predictions, labels):
  path = write(tmp_path, dataset, predictions, indexed(0, 1))
  assert path.name == file
  assert read(path) == [
    {"idx": 0, "label": labels[0]},
    {"idx": 1, "label": labels[1]},
  ]
  assert path.read_text().endswith("}\n")


def test_wsc_writes_the_judgement_of_the_rule(tmp_path):
  examples = [
    {"idx": 1, "targets_pretokenized": "the dog", "label": -1},
    {"idx": 0, "targets_pretokenized": "Anna", "label": -1},
  ]
  path = write(tmp_path, "wsc", ["Dog", "Maria"], examples)
  assert read(path) == [
    {"idx": 0, "label": "False"},  # by index, whatever the order given
    {"idx": 1, "label": "True"},
  ]


def test_multirc_is_nested(tmp_path):
  index = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (2, 5, 3)]
  examples = [
    {"idx/paragraph": p, "idx/question": q, "idx/answer": a}
    for p, q, a in index
  ]
  path = write(
    tmp_path, "multirc", ["True", "False", "True", "False"], examples
  )
  assert read(path) == [
    {
      "idx": 0,
      "passage": {
        "questions": [
          {
            "idx": 0,
            "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}],
          },
          {"idx": 1, "answers": [{"idx": 0, "label": 1}]},
        ]
      },
    },
    {
      "idx": 2,
      "passage": {
        "questions": [{"idx": 5, "answers": [{"idx": 3, "label": 0}]}]
      },
    },
  ]


def test_record_writes_one_answer_per_query(tmp_path):
  examples = [
    {"idx/passage": 4, "idx/query": q, "answers": []} for q in (7, 7, 3)
  ]
  path = write(tmp_path, "record", ["Ana", "Ben", "Oslo"], examples)
  assert read(path) == [
    {"idx": 3, "label": "Oslo"},
    {"idx": 7, "label": "Ana"},
  ]


@pytest.mark.parametrize(
  ("dataset", "file", "predictions", "rows"),
  [
    ("cola", "CoLA.tsv", ["acceptable", "unacceptable"], ["1", "0"]),
    ("sst2", "SST-2.tsv", ["positive", "negative"], ["1", "0"]),
    ("stsb", "STS-B.tsv", ["3.4", "0.0"], ["3.4", "0.0"]),
    ("mnli_matched", "MNLI-m.tsv", ["neutral"] * 2, ["neutral"] * 2),
    ("qnli", "QNLI.tsv", ["entailment"] * 2, ["entailment"] * 2),
    ("wnli", "WNLI.tsv", ["entailment"] * 2, ["1", "1"]),
  ],
)
def test_glue(tmp_path, dataset, file, predictions, rows):
  path = submission.write(
    f"glue_{dataset}_v002", predictions, indexed(0, 1), str(tmp_path)
  )
  assert path.name == file
  assert path.read_text() == (
    f"index\tprediction\n0\t{rows[0]}\n1\t{rows[1]}\n"
  )


def test_illegal_predictions_are_refused_or_replaced(tmp_path):
  predictions = ["True", "perhaps", ""]
  with pytest.raises(
    ValueError, match=r"2 of 3 predictions .* first in row 1: 'perhaps'"
  ):
    write(tmp_path, "boolq", predictions, indexed(0, 1, 2))
  assert not list(tmp_path.iterdir())
  path = write(tmp_path, "boolq", predictions, indexed(0, 1, 2), illegal=0)
  assert [row["label"] for row in read(path)] == ["true", "false", "false"]


def test_bad_calls(tmp_path):
  with pytest.raises(ValueError, match="two examples have the index 4"):
    write(tmp_path, "boolq", ["True", "True"], indexed(4, 4))
  with pytest.raises(ValueError, match="1 predictions for 2 examples"):
    write(tmp_path, "boolq", ["True"], indexed(0, 1))
  with pytest.raises(ValueError, match="has no submission file"):
    submission.write("squad_v010_allanswers", ["a"], [{}], str(tmp_path))
  same = {"idx/paragraph": 0, "idx/question": 0, "idx/answer": 0}
  with pytest.raises(ValueError, match="answer 0 of question 0 occurs twice"):
    write(tmp_path, "multirc", ["True", "True"], [same, same])
  assert not list(tmp_path.iterdir())
