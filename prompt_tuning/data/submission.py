"""The official submission files of the SuperGLUE and GLUE leaderboards."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.core import files
from prompt_tuning.data import postprocessors, spec

Example = Mapping[str, Any]

# Benchmark -> data set -> file name.
_FILES = {
  "super_glue": {
    "boolq": "BoolQ.jsonl",
    "cb": "CB.jsonl",
    "copa": "COPA.jsonl",
    "multirc": "MultiRC.jsonl",
    "record": "ReCoRD.jsonl",
    "rte": "RTE.jsonl",
    "wic": "WiC.jsonl",
    "wsc": "WSC.jsonl",
    "axb": "AX-b.jsonl",
    "axg": "AX-g.jsonl",
  },
  "glue": {
    "cola": "CoLA.tsv",
    "sst2": "SST-2.tsv",
    "mrpc": "MRPC.tsv",
    "stsb": "STS-B.tsv",
    "qqp": "QQP.tsv",
    "mnli_matched": "MNLI-m.tsv",
    "mnli_mismatched": "MNLI-mm.tsv",
    "qnli": "QNLI.tsv",
    "rte": "RTE.tsv",
    "wnli": "WNLI.tsv",
    "ax": "AX.tsv",
  },
}
# The file's words where they differ from the model's; ids if it needs ids.
_SPELLING: dict[str, tuple[Any, Any]] = {
  "boolq": ("false", "true"),
  "wic": ("false", "true"),
  "wsc": ("False", "True"),
}
_IDS = frozenset(("copa", "multirc", "cola", "sst2", "mrpc", "qqp", "wnli"))


def write(
  name: str,
  predictions: Sequence[str],
  examples: Sequence[Example],
  directory: str,
  illegal: int | None = None,
) -> pathlib.Path:
  """Write one task's submission file.

  AX-b and AX-g (and GLUE's AX) are written from predictions of the RTE (MNLI)
  prompt on those tasks' own examples.

  Args:
    name: name of the task, in any variant.
    predictions: decoded model outputs, one per example.
    examples: examples of the test split, with the task's `eval_features`.
    directory: directory of the file, which appears complete or not at all.
    illegal: class id to write for outputs that are not legal labels.

  Returns:
    The file's path.

  Raises:
    ValueError: a task without such a file, not one prediction per example, an
      output that is not a legal label while `illegal` is None, or an example
      that occurs twice.
  """
  return write_lines(
    name, lines(name, predictions, examples, illegal), directory
  )


def file_name(name: str) -> str:
  """Return the name of a task's submission file.

  Raises:
    ValueError: the task has none.
  """
  task = spec.task(name)
  known = _FILES.get(task.benchmark, {}).get(task.dataset)
  if known is None:
    every = ", ".join(f for files in _FILES.values() for f in files.values())
    raise ValueError(
      f"{name!r} has no submission file. These tasks have one: {every}."
    )
  return known


def lines(
  name: str,
  predictions: Sequence[str],
  examples: Sequence[Example],
  illegal: int | None = None,
) -> list[str]:
  """Make the lines of a task's submission file, see `write`."""
  file_name(name)
  task = spec.task(name)
  if len(predictions) != len(examples):
    raise ValueError(
      f"{name}: {len(predictions)} predictions for {len(examples)} examples."
    )
  if task.dataset == "record":
    answers = _record(predictions, examples)
  else:
    answers = _labels(task, predictions, examples, illegal)
  if task.dataset == "multirc":
    return _multirc_lines(answers, examples)
  return _lines(task, answers, examples)


def write_lines(
  name: str, content: Sequence[str], directory: str
) -> pathlib.Path:
  """Write a task's file, complete or not at all; return its path."""
  path = files.path(directory) / file_name(name)
  files.make_folder(path.parent)
  files.write_text(path, "".join(f"{line}\n" for line in content))
  return path


def _record(
  predictions: Sequence[str], examples: Sequence[Example]
) -> list[Any]:
  """Keep the first prediction of each query; None for its other rows."""
  seen: set[int] = set()
  answers: list[Any] = []
  for text, example in zip(predictions, examples, strict=True):
    query = int(example["idx/query"])
    answers.append(None if query in seen else text)
    seen.add(query)
  return answers


def _labels(
  task: spec.TaskSpec,
  predictions: Sequence[str],
  examples: Sequence[Example],
  illegal: int | None,
) -> list[Any]:
  """Convert predictions to the file's names of labels."""
  values = [
    task.postprocess(text, example=example, is_target=False)
    for text, example in zip(predictions, examples, strict=True)
  ]
  if task.dataset == "stsb":
    return values
  ids = [v["value"] if isinstance(v, Mapping) else v for v in values]
  bad = [row for row, i in enumerate(ids) if i == postprocessors.ILLEGAL]
  if bad and illegal is None:
    raise ValueError(
      f"{task.name}: {len(bad)} of {len(ids)} predictions are not a legal "
      f"label, the first in row {bad[0]}: {predictions[bad[0]]!r}. Set "
      "`illegal` to the class id that is written for them."
    )
  ids = [illegal if i == postprocessors.ILLEGAL else i for i in ids]
  if task.dataset in _IDS:
    return ids
  spelling = _SPELLING.get(task.dataset, task.label_words)
  return [spelling[i] for i in ids]


def _lines(
  task: spec.TaskSpec, answers: Sequence[Any], examples: Sequence[Example]
) -> list[str]:
  key = "idx/query" if task.dataset == "record" else "idx"
  answer_of: dict[int, Any] = {}
  for answer, example in zip(answers, examples, strict=True):
    if answer is None:
      continue
    index = int(example[key])
    if index in answer_of:
      raise ValueError(f"{task.name}: two examples have the index {index}.")
    answer_of[index] = answer
  rows = sorted(answer_of.items())
  if task.benchmark == "glue":
    return ["index\tprediction", *(f"{i}\t{answer}" for i, answer in rows)]
  return [json.dumps({"idx": i, "label": answer}) for i, answer in rows]


def _multirc_lines(
  answers: Sequence[int], examples: Sequence[Example]
) -> list[str]:
  """Nest answers under their questions, and those under their paragraphs."""
  paragraphs: dict[int, dict[int, dict[int, int]]] = {}
  for label, example in zip(answers, examples, strict=True):
    paragraph, question, answer = (
      int(example[f"idx/{key}"]) for key in ("paragraph", "question", "answer")
    )
    of_question = paragraphs.setdefault(paragraph, {}).setdefault(question, {})
    if answer in of_question:
      raise ValueError(
        f"MultiRC: answer {answer} of question {question} occurs twice."
      )
    of_question[answer] = label
  return [
    json.dumps({"idx": p, "passage": {"questions": _questions(questions)}})
    for p, questions in sorted(paragraphs.items())
  ]


def _questions(questions: Mapping[int, Mapping[int, int]]) -> list[Any]:
  return [
    {
      "idx": q,
      "answers": [{"idx": a, "label": i} for a, i in sorted(labels.items())],
    }
    for q, labels in sorted(questions.items())
  ]
