"""The layouts of official files, with checks of their rows.

If TFDS has a generator for an official layout, that generator converts the
rows, so that examples, keys and thus their order on disk are TFDS's. The code
here then only checks the file, because TFDS's errors do not give the position.
"""

import itertools
import json
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prompt_tuning.core import plain_text
from prompt_tuning.data import tables
from prompt_tuning.data.prepare.fields import Example, check_label, get

# TFDS makes MRPC from its authors' files, which have these column names.
COPA = ("choice1", "choice2")
CHOICES = ("A", "B", "C", "D")  # RACE's
_MRPC_COLUMNS = {"sentence1": "#1 String", "sentence2": "#2 String"}

Builder = Any  # tfds.core.GeneratorBasedBuilder: TensorFlow's, imported late


class Layout(Protocol):
  """Checks and converts one official file."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every row's place and key.

    Raises:
      ValueError: a bad row, with file, line and what was expected.
    """

  def examples(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Convert a checked file: (key, TFDS example) pairs."""


class Converted:
  """A layout whose rows are converted here."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every row's place, key and TFDS example, see `Layout`."""
    raise NotImplementedError

  def examples(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Convert a checked file: (key, TFDS example) pairs."""
    for example in self.check(path, split, builder):
      assert example.values is not None
      yield example.key, example.values


class SuperGlue:
  """SuperGLUE's JSONL; labels may be missing in `test` only.

  A label is the name of a class, or its index, as in other copies of the data;
  -1 is a missing label.
  """

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every answer (MultiRC), query (ReCoRD) or row."""
    config = builder.builder_config
    for place, row in tables.read(str(path)):
      if config.name == "multirc":
        yield from self._multirc(place, row, split)
      elif config.name == "record":
        yield from self._record(place, row, split)
      else:
        self._flat(place, row, split, builder)
        yield Example(place, get(place, row, "idx", int))

  def examples(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Let TFDS convert the file; it does not know class indices."""
    rows = [row for _, row in tables.read(str(path))]
    if not any(type(row.get("label")) is int for row in rows):
      yield from builder._generate_examples(str(path), split)
      return
    names = builder.info.features["label"].names
    with tempfile.TemporaryDirectory() as folder:
      named = pathlib.Path(folder, path.name)
      lines = (json.dumps(_with_name(row, names)) for row in rows)
      named.write_text("\n".join(lines), encoding="utf-8")
      yield from builder._generate_examples(str(named), split)

  def _flat(
    self, place: str, row: dict[str, Any], split: str, builder: Builder
  ) -> None:
    config = builder.builder_config
    columns = row
    if config.name.startswith("wsc"):
      columns = {**row, **get(place, row, "target", dict)}
    for name in config.features:
      is_number = builder.info.features[name].np_dtype.kind == "i"
      get(place, columns, name, int if is_number else str)
    if _is_hidden(row) and split == "test":
      return
    get(place, row, "label", object)
    check_label(place, row["label"], builder.info.features["label"].names)

  def _multirc(
    self, place: str, row: dict[str, Any], split: str
  ) -> Iterator[Example]:
    idx = get(place, row, "idx", int)
    passage = get(place, row, "passage", dict)
    get(place, passage, "text", str)
    for question in get(place, passage, "questions", list):
      get(place, question, "question", str)
      number = get(place, question, "idx", int)
      for answer in get(place, question, "answers", list):
        get(place, answer, "text", str)
        if "label" in answer or split != "test":
          label = get(place, answer, "label", int)
          if label not in (0, 1):
            raise ValueError(
              f"{place}: unknown label {label!r}; expected 0 or 1."
            )
        yield Example(place, f"{idx}_{number}_{get(place, answer, 'idx', int)}")

  def _record(
    self, place: str, row: dict[str, Any], split: str
  ) -> Iterator[Example]:
    get(place, row, "idx", int)
    passage = get(place, row, "passage", dict)
    text = get(place, passage, "text", str)
    for entity in get(place, passage, "entities", list):
      start, end = (get(place, entity, name, int) for name in ("start", "end"))
      if not 0 <= start <= end < len(text):
        raise ValueError(
          f"{place}: entity from {start} to {end} lies outside the passage of "
          f"{len(text)} characters."
        )
    for query in get(place, row, "qas", list):
      get(place, query, "query", str)
      if "answers" in query or split != "test":
        for answer in get(place, query, "answers", list):
          get(place, answer, "text", str)
      yield Example(place, get(place, query, "idx", int))


def _is_hidden(row: Mapping[str, Any]) -> bool:
  return row.get("label", -1) == -1


def _with_name(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
  """Replace a class index by its name, except COPA's, which TFDS reads."""
  if _is_hidden(row):
    return {name: value for name, value in row.items() if name != "label"}
  label = row["label"]
  if type(label) is int and tuple(names) != COPA:
    return {**row, "label": names[label]}
  return row


class GlueJsonl(Converted):
  """GLUE as JSONL under TFDS's feature names; the test labels are hidden."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every row."""
    config = builder.builder_config
    for place, row in tables.read(str(path)):
      idx = get(place, row, "idx", int)
      values: dict[str, Any] = {"idx": idx}
      for name in config.text_features:
        values[name] = get(place, row, name, str)
      values["label"] = -1  # as TFDS has it, whatever the file says
      if not split.startswith("test"):
        values["label"] = self._label(place, row, config)
      yield Example(place, idx, values)

  def _label(self, place: str, row: dict[str, Any], config: Any) -> Any:
    if not config.label_classes:
      return get(place, row, "label", float)
    label = get(place, row, "label", object)
    check_label(place, label, config.label_classes)
    return label


class GlueTsv(Converted):
  """GLUE's official TSV files (MRPC as GLUE's download script writes it)."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every row that TFDS keeps; it drops rows that end early."""
    config = builder.builder_config
    columns, label_column = config.text_features, config.label_column
    if config.name == "mrpc":
      columns = _MRPC_COLUMNS
    header = None
    if config.name == "cola" and not split.startswith("test"):
      header = ["source", label_column, "annotation", *columns.values()]
    for number, (place, row) in enumerate(_tsv_rows(path, header)):
      needed = list(columns.values())
      if not split.startswith("test"):
        needed.append(label_column)
      texts = [get(place, row, column, object) for column in needed]
      if None in texts:
        continue
      values = dict(zip(columns, texts, strict=False))
      label = -1
      if len(needed) > len(columns):
        label = self._label(place, row, config)
      yield Example(place, number, {**values, "label": label, "idx": number})

  def _label(self, place: str, row: dict[str, Any], config: Any) -> Any:
    if not config.label_classes:
      return get(place, row, config.label_column, float)
    text = row[config.label_column]
    label = int(text) if text in ("0", "1") else text
    check_label(place, label, config.label_classes)
    return label


class Squad:
  """SQuAD v1.1's nested JSON."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every question."""
    del builder
    document = _json_document(path)
    for i, article in enumerate(get(str(path), document, "data", list)):
      at = f"{path}: data[{i}]"
      for j, paragraph in enumerate(get(at, article, "paragraphs", list)):
        at = f"{path}: data[{i}].paragraphs[{j}]"
        get(at, paragraph, "context", str)
        for k, qa in enumerate(get(at, paragraph, "qas", list)):
          at_question = f"{at}.qas[{k}]"
          get(at_question, qa, "question", str)
          for answer in _answers(at_question, qa, split):
            get(at_question, answer, "text", str)
            get(at_question, answer, "answer_start", int)
          yield Example(at_question, get(at_question, qa, "id", str))

  def examples(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Let TFDS convert the file."""
    del split
    return builder._generate_examples(str(path))


class Mrqa:
  """The MRQA 2019 JSONL: a header, then one context with questions per line."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every question."""
    del split, builder
    rows = tables.read(str(path))
    place, header = next(rows)
    get(place, get(place, header, "header", dict), "dataset", str)
    for place, row in rows:
      get(place, row, "context", str)
      get(place, row, "context_tokens", list)
      for qa in get(place, row, "qas", list):
        get(place, qa, "question", str)
        get(place, qa, "question_tokens", list)
        _answers(place, qa, "")  # none of MRQA's splits hides them
        for answer in get(place, qa, "detected_answers", list):
          get(place, answer, "text", str)
          get(place, answer, "char_spans", list)
          get(place, answer, "token_spans", list)
        yield Example(place, get(place, qa, "qid", str))

  def examples(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Let TFDS convert the file."""
    return builder._generate_examples(str(path), split)


class Dpr:
  """Definite pronoun resolution: blocks of four lines and an empty one."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every sentence."""
    del split, builder
    lines = [line.strip() for line in plain_text.lines(str(path))]
    for start in range(0, len(lines), 5):
      place = f"{path}:{start + 1}"
      block = lines[start : start + 5]
      if not block[0] and not any(lines[start:]):
        return
      candidates = [name.strip() for name in (block + [""] * 3)[2].split(",")]
      if len(block) < 4 or len(candidates) != 2 or block[3] not in candidates:
        raise ValueError(
          f"{place}: expected a sentence, its pronoun, two candidates with a "
          f"comma between them, and the right one; got {block!r:.160}."
        )
      yield Example(place, start // 5)

  def examples(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Let TFDS convert the file."""
    del split
    return builder._generate_examples(str(path))


class Labelled(Converted):
  """JSONL with `label`, counted from 0, and text fields.

  If a row has `text` instead of the dataset's two fields, the text is the
  second field.
  """

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every row."""
    del split
    features = builder.info.features
    texts = [name for name in features if name != "label"]
    for number, (place, row) in enumerate(tables.read(str(path))):
      if "text" in row and "text" not in texts and texts[-1] not in row:
        row = {**row, **dict.fromkeys(texts, ""), texts[-1]: row["text"]}
      values = {name: get(place, row, name, str) for name in texts}
      values["label"] = get(place, row, "label", object)
      check_label(place, values["label"], features["label"].names)
      yield Example(place, number, values)


class Polarity(Converted):
  """Rows of `Labelled` with five classes as two; the middle class is dropped.

  Source: Zhang et al. 2015, who made their two-class set in this way.
  """

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every row except those of the middle class."""
    del split, builder
    for number, (place, row) in enumerate(tables.read(str(path))):
      text = get(place, row, "text", str)
      stars = get(place, row, "label", object)
      check_label(place, stars, ("1", "2", "3", "4", "5"))
      stars = stars if type(stars) is int else int(stars) - 1
      if stars != 2:
        values = {"text": text, "label": int(stars > 2)}
        yield Example(place, number, values)


class Trees(Converted):
  """Stanford's sentiment trees: a class from 0 to 4 in front of every phrase.

  The sentence has the class of the whole tree. Brackets in it are written as
  words, `-LRB-` and `-RRB-`.
  """

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every sentence."""
    del split, builder
    for number, line in enumerate(plain_text.lines(str(path)), 1):
      place, tree = f"{path}:{number}", line.strip()
      match = re.match(r"\(([0-4]) ", tree)
      words = re.findall(r"\([0-4] ([^()\s]+)\)", tree)
      if not match or not words or tree.count("(") != tree.count(")"):
        raise ValueError(
          f"{place}: expected a tree such as '(3 (2 It) (4 works))', got "
          f"{tree!r:.80}."
        )
      brackets = {"-LRB-": "(", "-RRB-": ")"}
      sentence = " ".join(brackets.get(word, word) for word in words)
      values = {"sentence": sentence, "label": int(match[1])}
      yield Example(place, number, values)


class Choices(Converted):
  """RACE with a question per line: article, question, options, answer."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every question."""
    del split, builder
    for number, (place, row) in enumerate(tables.read(str(path))):
      options = row.get("options", row.get("option"))
      values = {
        "article": get(place, row, "article", str),
        **_choice(place, get(place, row, "question", str), options),
        "label": _letter(place, row),
      }
      yield Example(place, number, values)


class ChoicesOfArticle(Converted):
  """One of RACE's own files: an article with its questions."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every question."""
    del split, builder
    document = _json_document(path)
    article = get(str(path), document, "article", str)
    columns = [
      get(str(path), document, name, list)
      for name in ("questions", "options", "answers")
    ]
    if len(set(map(len, columns))) > 1:
      raise ValueError(
        f"{path}: {', '.join(str(len(column)) for column in columns)} "
        "questions, options and answers; expected equal numbers."
      )
    for k, (question, options, answer) in enumerate(zip(*columns, strict=True)):
      place = f"{path}: questions[{k}]"
      values = {
        "article": article,
        **_choice(place, question, options),
        "label": _letter(place, {"answer": answer}),
      }
      # Articles are numbered within their level, high or middle.
      yield Example(place, f"{path.parent.name}{path.stem}_{k}", values)


def _choice(place: str, question: Any, options: Any) -> dict[str, str]:
  """Return a question and its four options."""
  is_list = isinstance(options, list) and len(options) == len(CHOICES)
  texts = [question, *options] if is_list else []
  if not texts or not all(isinstance(text, str) for text in texts):
    raise ValueError(
      f"{place}: expected a question and a list of {len(CHOICES)} options, all "
      f"of them texts, got {question!r:.40} and {options!r:.80}."
    )
  return dict(zip(("question", *map(str.lower, CHOICES)), texts, strict=True))


def _letter(place: str, row: Mapping[str, Any]) -> str:
  answer = get(place, row, "answer", str)
  check_label(place, answer, CHOICES)
  return answer


class LabelledCsv(Converted):
  """The official CSV of Zhang et al.: class from 1, then texts, no header.

  There are as many as the dataset has, but two at least: one with a single text
  feature (Amazon reviews) gets title and text with a blank between them.
  """

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield every row."""
    del split
    features = builder.info.features
    texts = [name for name in features if name != "label"]
    names = texts if len(texts) > 1 else ["first", "second"]
    columns = ("class", *names)
    for number, (place, row) in enumerate(tables.read(str(path), columns)):
      label = get(place, row, "class", int) - 1
      check_label(place, label, features["label"].names)
      cells = [row[name] for name in names]
      if len(texts) == 1:
        cells = [" ".join(cells)]
      yield Example(
        place, number, {**dict(zip(texts, cells, strict=True)), "label": label}
      )


class ReviewFile(Converted):
  """One review of aclImdb: the folder is its label."""

  def check(
    self, path: pathlib.Path, split: str, builder: Builder
  ) -> Iterator[Example]:
    """Yield the one review."""
    del builder
    text = "".join(plain_text.lines(str(path))).strip()
    if not text:
      raise ValueError(f"{path}: the file is empty; expected a review.")
    label = -1 if split == "unsupervised" else path.parent.name
    # TFDS's key: the path within the archive.
    key = pathlib.PurePosixPath(*path.parts[-4:])
    yield Example(str(path), str(key), {"text": text, "label": label})


def _answers(place: str, question: Any, split: str) -> list[Any]:
  """Return a question's answers; only those of a test split may be hidden."""
  answers: list[Any] = get(place, question, "answers", list)
  if not answers and not split.startswith("test"):
    raise ValueError(
      f"{place}: the question has no answer; expected at least one. Questions "
      "without an answer belong to SQuAD 2.0, not 1.1: remove them."
    )
  return answers


def _tsv_rows(
  path: pathlib.Path, header: Sequence[str] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yield place and row; cells that a row lacks are None."""
  empty = True
  for number, line in enumerate(plain_text.lines(str(path)), 1):
    cells = line.rstrip("\r\n").split("\t")
    if header is None:
      header = cells
      continue
    if cells != [""]:
      empty = False
      row = dict(itertools.zip_longest(header, cells[: len(header)]))
      yield f"{path}:{number}", row
  if empty:
    raise ValueError(f"{path}: the file has no rows; expected at least one.")


def _json_document(path: pathlib.Path) -> Any:
  text = "".join(plain_text.lines(str(path)))
  if not text.strip():
    raise ValueError(f"{path}: the file is empty; expected a JSON document.")
  return plain_text.json_value(str(path), text)
