"""A user's own task, declared from JSONL, CSV or TSV files in one call.

A command uses the task several times, and files may be large. So a file is
hashed once per process, and its rows are read only to write a token cache.
"""

import functools
import io
import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import files as core_files
from prompt_tuning.core import tree
from prompt_tuning.data import postprocessors, spec, tables
from prompt_tuning.data.metrics import (
  classification,
  correlation,
  qa,
  relation,
)

_SPLITS = ("train", "validation", "test")
# Separates the acceptable answers in a cell, as in MRQA's TSV files.
ANSWER_SEPARATOR = "|||"

# For tasks that are ranked: the mean of 1 / the rank of the right class.
BY_RANKS = "mean_reciprocal_rank"
_LABEL_METRICS: dict[str, spec.Metric] = {
  "accuracy": classification.accuracy,
  "f1": classification.f1,
  "matthews": classification.matthews,
}
_NUMBER_METRICS: dict[str, spec.Metric] = {
  "pearson": correlation.pearson,
  "spearman": correlation.spearman,
}
_TEXT_METRICS: dict[str, spec.Metric] = {"exact_match": classification.accuracy}
_ANSWER_METRICS: dict[str, spec.Metric] = {"squad": qa.squad}
# The micro-averaged F1 of all classes but the one whose word follows.
_WITHOUT = "micro_f1_without:"
METRICS = (
  *_LABEL_METRICS,
  "mean_f1",  # depends on the number of classes
  BY_RANKS,
  *_NUMBER_METRICS,
  *_TEXT_METRICS,
  *_ANSWER_METRICS,
)


def declare(
  name: str,
  files: Mapping[str, str],
  template: str,
  target_column: str,
  label_words: Mapping[str, str] | Sequence[str] = (),
  metrics: Sequence[str] = (),
  id_column: str | None = None,
  columns: Sequence[str] = (),
) -> spec.TaskSpec:
  """Declare a task on a user's files; seqio gets its task when needed.

  This checks the first row of every file; `rows` checks the others, before
  training.

  Args:
    name: name of the task: letters, digits, `_`, `.`, `:`.
    files: split (`train`, `validation`, `test`) -> file, see `tables.read`.
    template: the input text, with columns in braces:
      `premise: {premise} hypothesis: {hypothesis}`. `{{` is a brace.
    target_column: the column with the label, the answer or the score. Rows of
      `test` may lack it.
    label_words: for classification, the words the model should answer: a
      mapping from the column's value to its word, or a list of words, where the
      column holds the word or its position (of two words, also false or true).
      Empty: the column's text itself is the target.
    metrics: names from `METRICS`: `accuracy`, `f1` (of the second of two
      words), `mean_f1`, `matthews`, `micro_f1_without:no_relation` (all classes
      but the one of this word), and beside these, where classes are ranked,
      `mean_reciprocal_rank`, with label words; `pearson`, `spearman` for
      numbers; `exact_match`, or `squad` (several answers as a JSON list, or
      separated by `|||`, which no other metric divides at), for text. By
      default `accuracy` or `exact_match`.
    id_column: column with the rows' ids; by default they are numbered from 0.
    columns: names for CSV or TSV files without a header line.

  Returns:
    The registered spec. Its name can be used like that of any task, also with
    the suffix `_k16_seed0`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a bad argument, an empty file, or a bad first row: with file,
      line and what was expected.
  """
  word_of = _word_of_value(label_words)
  parse_template(template)
  content = {
    "template": template,
    "target_column": target_column,
    "label_words": word_of,
    "id_column": id_column,
    "columns": list(columns),
  }
  task = _task(name, files, tuple(metrics), content)
  for split, path in task.splits.items():
    first = _head(path, columns).first
    _example(task, split, parse_template(template), first, 0)
  spec.add(task)
  return task


def check_name(name: str) -> None:
  """Check a task's name.

  Raises:
    ValueError: another name.
  """
  if not re.fullmatch(r"[\w.:]+", name):
    raise ValueError(
      f"Task name {name!r}: expected letters, digits, '_', '.' and ':' only."
    )


def _task(
  name: str,
  files: Mapping[str, str],
  metrics: tuple[str, ...],
  content: Mapping[str, Any],
) -> spec.TaskSpec:
  check_name(name)
  if not files:
    raise ValueError(f"{name}: no files; expected at least one split.")
  for split in files:
    if split not in _SPLITS:
      raise ValueError(
        f"{name}: unknown split {split!r}.{tree.nearest(split, _SPLITS)} "
        f"Expected {', '.join(_SPLITS)}."
      )
  words = tuple(dict.fromkeys(content["label_words"].values()))
  functions, postprocess = _metrics(metrics, words)
  if postprocess is spec.keep_text:  # other targets than other metrics'
    content = {**content, "targets": "whole"}
  return spec.TaskSpec(
    name=name,
    benchmark="custom",
    dataset=name,
    module="prompt_tuning.data.tasks.custom",
    source=spec.FILE,
    splits={split: str(path) for split, path in files.items()},
    label_words=words,
    postprocess=postprocess,
    metrics=functions,
    by_ranks=bool(words) and BY_RANKS in metrics,
    eval_features=("idx", "answers"),
    content={
      **content,
      "sha256": {
        split: _head(str(path), content["columns"]).sha256
        for split, path in files.items()
      },
    },
  )


def rows(task: spec.TaskSpec, split: str) -> Iterator[dict[str, Any]]:
  """Read a file and render its rows, see `rows_with_columns`."""
  for _, example in rows_with_columns(task, split):
    yield example


def rows_with_columns(
  task: spec.TaskSpec, split: str
) -> Iterator[tuple[tables.Row, dict[str, Any]]]:
  """Read a file and render its rows.

  Args:
    task: a task of `declare`.
    split: one of its splits.

  Yields:
    A row and its example: `inputs`, `targets` (`<unk>` without a label),
    `label` (class id; 0 for free text, -1 without a label), `answers` (all
    acceptable ones) and `idx` (text).

  Raises:
    FileNotFoundError: the file is gone.
    ValueError: a bad row: with file, line and what was expected; or the file
      has changed since the task was declared.
  """
  path, template = task.splits[split], parse_template(task.content["template"])
  content = core_files.path(path).read_bytes()
  # This hash names the token cache, so that it must be that of these rows.
  if core_files.sha256(content) != task.content["sha256"][split]:
    raise ValueError(
      f"{path} has changed since {task.name!r} was declared; run the command "
      "again, or declare the new content under another name."
    )
  lines: dict[str, str] = {}
  table = tables.parse(path, io.BytesIO(content), task.content["columns"])
  for number, row in enumerate(table):
    example = _example(task, split, template, row, number)
    if task.content["id_column"]:
      key = example["idx"]
      if key in lines:
        raise ValueError(
          f"{row.place}: id {key!r} is already in {lines[key]}; expected "
          f"different values in column {task.content['id_column']!r}."
        )
      lines[key] = row.place
    yield row, example


def first_row(task: spec.TaskSpec, split: str) -> tables.Row:
  """Return the first row of a task's file.

  Raises:
    FileNotFoundError: the file is gone.
    ValueError: it has no rows, or a bad first one.
  """
  return _head(task.splits[split], task.content["columns"]).first


def parse_template(template: str) -> list[tuple[str, str | None]]:
  """Split a template into literal texts, each with the column after it.

  Args:
    template: `premise: {premise}`.

  Returns:
    (literal, column) pairs; the last column may be None.

  Raises:
    ValueError: no column, or more than a column's name in braces.
  """
  try:
    fields = list(string.Formatter().parse(template))
  except ValueError as error:
    raise ValueError(f"Template {template!r}: {error}.") from error
  if any(name == "" or form or conv for _, name, form, conv in fields):
    raise ValueError(
      f"Template {template!r}: expected only a column's name between braces. "
      "For a brace in the text, write {{."
    )
  if all(name is None for _, name, _, _ in fields):
    raise ValueError(
      f"Template {template!r} names no column; expected for instance "
      "'premise: {premise}'."
    )
  return [(literal, name) for literal, name, _, _ in fields]


def _example(
  task: spec.TaskSpec,
  split: str,
  template: Sequence[tuple[str, str | None]],
  row: tables.Row,
  number: int,
) -> dict[str, Any]:
  """Render one row, see `rows`."""
  inputs = "".join(
    literal + (row.text(column, "the template") if column else "")
    for literal, column in template
  )
  answers, label = _target(task, row, may_lack=split == "test")
  id_column = task.content["id_column"]
  return {
    "inputs": inputs,
    "targets": answers[0] if answers else spec.UNLABELLED,
    "label": label,
    "answers": answers,
    "idx": row.text(id_column, "id_column") if id_column else f"{number}",
  }


def _target(
  task: spec.TaskSpec, row: tables.Row, may_lack: bool
) -> tuple[list[str], int]:
  """Return the acceptable target texts, and the class id."""
  column = task.content["target_column"]
  if may_lack and row.values.get(column) in (None, ""):
    return [], -1
  value = row.value(column, "target_column")
  if task.label_words:
    word = _word(task.content["label_words"], value, row, column)
    return [word], task.label_words.index(word)
  answers = _answers(task, row, column)
  if not answers or not all(answer.strip() for answer in answers):
    raise ValueError(
      f"{row.place}: expected a target text in column {column!r}, got "
      f"{value!r}."
    )
  is_number = task.postprocess is postprocessors.to_float
  if is_number and math.isnan(postprocessors.to_float(answers[0], True)):
    raise ValueError(
      f"{row.place}: expected a number in column {column!r}, got {value!r}."
    )
  return answers, 0


def _answers(task: spec.TaskSpec, row: tables.Row, column: str) -> list[str]:
  """Return the target text; where answers are compared, all of them."""
  value, needed_for = row.values[column], "target_column"
  if not _has_several_answers(task):
    if isinstance(value, list):
      raise ValueError(
        f"{row.place}: column {column!r} is a list, {value!r:.80}; several "
        "acceptable answers need metrics = ('squad',)."
      )
    return [row.text(column, needed_for)]
  if isinstance(value, list):
    place = f"{row.place}: a part of column {column!r}"
    return [tables.as_text(place, part, needed_for) for part in value]
  return row.text(column, needed_for).split(ANSWER_SEPARATOR)


def _has_several_answers(task: spec.TaskSpec) -> bool:
  """Whether the metrics know more than one acceptable answer."""
  return task.postprocess is postprocessors.qa


def _word(
  word_of: Mapping[str, str], value: Any, row: tables.Row, column: str
) -> str:
  text = row.text(column, "target_column")
  if text not in word_of:
    raise ValueError(
      f"{row.place}: unknown label {value!r} in column {column!r}."
      f"{tree.nearest(text, word_of)} Expected one of: {', '.join(word_of)}."
    )
  return word_of[text]


def _word_of_value(
  label_words: Mapping[str, str] | Sequence[str],
) -> dict[str, str]:
  """Return the column's values, as text, with their words in class-id order."""
  if isinstance(label_words, str):
    raise ValueError(
      "label_words: expected a list or a mapping, got the text "
      f"{label_words!r}."
    )
  if isinstance(label_words, Mapping):
    return {
      tables.as_text("label_words", value, "it"): word
      for value, word in label_words.items()
    }
  if len(set(label_words)) < len(label_words):
    raise ValueError(f"label_words repeat a word: {', '.join(label_words)}.")
  # Words come first: if they are "1" and "0", a column's 1 means the word "1".
  word_of = {word: word for word in label_words}
  for position, word in enumerate(label_words):
    word_of.setdefault(str(position), word)
    if len(label_words) == 2:
      word_of.setdefault(("false", "true")[position], word)
  return word_of


def _metrics(
  names: tuple[str, ...], words: tuple[str, ...]
) -> tuple[tuple[spec.Metric, ...], spec.Postprocess]:
  """Return the metrics, and the postprocessor that fits all of them."""
  if words:
    names = tuple(name for name in names if name != BY_RANKS)
  names = names or ("accuracy" if words else "exact_match",)
  for name in names:
    if name not in METRICS and not name.startswith(_WITHOUT):
      raise ValueError(
        f"Unknown metric {name!r}.{tree.nearest(name, METRICS)} Known: "
        f"{', '.join(METRICS)}, {_WITHOUT}WORD."
      )
  kinds: list[tuple[dict[str, spec.Metric], spec.Postprocess]]
  if words:
    by_name = {**_LABEL_METRICS, "mean_f1": classification.mean_f1(len(words))}
    if len(words) != 2:
      del by_name["f1"]
    for name in names:
      if name.startswith(_WITHOUT):
        word = name.removeprefix(_WITHOUT)
        by_name[name] = relation.micro_f1_without(words, word)
    kinds = [(by_name, postprocessors.LabelId(words))]
  else:
    kinds = [
      (_NUMBER_METRICS, postprocessors.to_float),
      (_TEXT_METRICS, spec.keep_text),
      (_ANSWER_METRICS, postprocessors.qa),
    ]
  for by_name, postprocess in kinds:
    if all(name in by_name for name in names):
      functions = tuple(by_name[name] for name in names)
      if words:
        statistics = classification.label_statistics
        functions = (*functions, functools.partial(statistics, words))
      return functions, postprocess
  raise ValueError(
    f"Metrics {', '.join(names)} do not fit "
    + (f"the label words {', '.join(words)}" if words else "free text")
    + ". Label words go with accuracy, mean_f1, matthews and, if there are "
    "two, f1; other targets with pearson and spearman, or exact_match, or "
    "squad."
  )


class _Head(NamedTuple):
  """The parts of a file that a declaration needs: its hash and first row."""

  sha256: str
  first: tables.Row


def _head(path: str, columns: Sequence[str]) -> _Head:
  """Read a file's head; read it again only if the file has changed."""
  if not core_files.is_file(path):
    raise FileNotFoundError(f"No data file {path}.")
  state = core_files.written_state(path)
  return _read_head(path, tuple(columns), state)


@functools.lru_cache(maxsize=64)
def _read_head(
  path: str, columns: tuple[str, ...], state: tuple[Any, ...]
) -> _Head:
  del state  # part of the key
  with core_files.open_file(path) as file:
    first = next(tables.parse(path, file, columns))
    return _Head(core_files.open_file_sha256(file), first)
