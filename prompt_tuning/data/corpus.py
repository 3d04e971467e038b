"""Corpora to pre-train on: text files, and generated skills.

A corpus is declared once. An objective turns it into an ordinary task, which
seqio tokenises, and which is cached, packed and mixed by rate.
"""

import contextlib
import dataclasses
import gzip
import lzma
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from prompt_tuning.core import files, plain_text, tree
from prompt_tuning.data import denoising, skills, spec, vocabulary

MODULE = "prompt_tuning.data.tasks.corpus"
TRAIN, VALIDATION = "train", "validation"

_OPENERS: Mapping[str, Callable[..., Any]] = {
  ".gz": gzip.open,
  ".xz": lzma.open,
}
_FORMATS = (".txt", ".jsonl")
_HELD_OUT_SKILLS = 1024


class Document(NamedTuple):
  """One text of a corpus.

  Attributes:
    text: running text, or a question.
    answer: the answer to a question; empty for running text, which the
      objective divides.
  """

  text: str
  answer: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
  """Text files.

  Attributes:
    name: name of the corpus.
    files: split -> file or files; splits are `train` and, for the loss on
      held-out text, `validation`. `.txt`: documents are separated by blank
      lines. `.jsonl`: one object per line, with `text`, or with `inputs` and
      `targets`. Either may be compressed, as `.gz` or `.xz`. UTF-8.
    rate: sampling rate in a mixture, relative to others.
    every: n; keeps every n-th document, of the training files only.
  """

  name: str
  files: Mapping[str, str | Sequence[str]]
  rate: float = 1.0
  every: int = 1

  def __post_init__(self) -> None:
    if TRAIN not in self.files or set(self.files) - {TRAIN, VALIDATION}:
      raise ValueError(
        f"Corpus {self.name!r} has files for "
        f"{', '.join(self.files) or 'nothing'}; expected {TRAIN!r}, and "
        f"{VALIDATION!r} if you have it."
      )
    if self.every < 1 or not self.rate > 0:
      raise ValueError(
        f"Corpus {self.name!r}: rate {self.rate} and every {self.every} must "
        "be positive."
      )

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that have files."""
    return tuple(self.files)

  def documents(self, split: str) -> Iterator[Document]:
    """Read the documents of a split.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is empty, binary, or holds something else.
    """
    for _, document in self.placed_documents(split):
      yield document

  def placed_documents(self, split: str) -> Iterator[tuple[str, Document]]:
    """Read the documents of a split, each with its place, such as `FILE:LINE`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is empty, binary, or holds something else.
    """
    every = self.every if split == TRAIN else 1
    for path in self._paths(split):
      for number, (line, document) in enumerate(_numbered(path)):
        if number % every == 0:
          yield f"{path}:{line}", document

  def content(self) -> dict[str, Any]:
    """Describe everything that decides the documents, as JSON values."""
    hashes = {s: [_sha256(p) for p in self._paths(s)] for s in self.splits}
    return {"sha256": hashes, "every": self.every}

  def _paths(self, split: str) -> tuple[str, ...]:
    paths = self.files[split]
    return (paths,) if isinstance(paths, str) else tuple(paths)


@dataclasses.dataclass(frozen=True)
class Skills:
  """Generated questions with an instruction in words, and answers.

  Attributes:
    count: number of training questions.
    rate: see `Text`.
    seed: seed of the generator.
    name: name of the corpus.
  """

  count: int
  rate: float = 1.0
  seed: int = 0
  name: str = "skills"

  @property
  def splits(self) -> tuple[str, ...]:
    """Training and held-out questions."""
    return TRAIN, VALIDATION

  def documents(self, split: str) -> Iterator[Document]:
    """Generate the questions of a split."""
    train = split == TRAIN
    count = self.count if train else _HELD_OUT_SKILLS
    seed = 2 * self.seed + (0 if train else 1)
    for row in skills.pretraining(count, seed):
      yield Document(row["inputs"], row["targets"])

  def content(self) -> dict[str, Any]:
    """Describe everything that decides the documents, as JSON values."""
    return {"version": skills.VERSION, "count": self.count, "seed": self.seed}


Corpus = Text | Skills


@dataclasses.dataclass(frozen=True)
class Denoising:
  """Settings for turning texts into examples.

  Attributes:
    objective: `span_corruption`, or `prefix_lm`: the text is cut in two, and
      the second part continues the first.
    chunk_length: tokens of running text per example; documents are not joined.
    noise_density: share of tokens that is noise.
    mean_span: mean tokens of a noise span.
    passes: number of examples of each chunk, each with its own noise. Noise is
      drawn once and cached; training for more epochs than this repeats it.
    seed: seed of the noise.
  """

  objective: str = denoising.SPAN_CORRUPTION
  chunk_length: int = 128
  noise_density: float = 0.15
  mean_span: float = 3.0
  passes: int = 1
  seed: int = 0

  def __post_init__(self) -> None:
    _, spans = denoising.span_lengths(
      max(self.chunk_length, 2), self.noise_density, max(self.mean_span, 1)
    )
    corrupts = self.objective == denoising.SPAN_CORRUPTION
    if corrupts and spans > vocabulary.EXTRA_IDS:
      raise ValueError(
        f"Chunks of {self.chunk_length} tokens have {spans} noise spans, but "
        f"there are {vocabulary.EXTRA_IDS} sentinels; lower CHUNK_LENGTH."
      )
    if self.objective not in denoising.OBJECTIVES:
      near = tree.nearest(self.objective, denoising.OBJECTIVES)
      raise ValueError(
        f"Unknown pre-training objective {self.objective!r}.{near} Expected "
        f"one of {', '.join(denoising.OBJECTIVES)}."
      )
    if self.chunk_length < 2 or self.passes < 1:
      raise ValueError(
        f"CHUNK_LENGTH {self.chunk_length} and PASSES {self.passes}: expected "
        "at least 2 tokens and 1 pass."
      )
    if not (0 < self.noise_density < 1 and self.mean_span >= 1):
      raise ValueError(
        f"NOISE_DENSITY {self.noise_density} and MEAN_SPAN {self.mean_span}: "
        "expected a share between 0 and 1, and at least 1 token."
      )

  @property
  def longest(self) -> tuple[int, int]:
    """Maximum lengths of inputs and targets of running text, with EOS."""
    length = self.chunk_length
    if self.objective == denoising.PREFIX_LM:
      return length, length  # each has EOS, and the other at least one token
    noise, spans = denoising.span_lengths(
      length, self.noise_density, self.mean_span
    )
    return length - noise + spans + 1, noise + spans + 1


# Task -> its corpus; seqio's registration reads the documents from here.
_corpora: dict[str, Corpus] = {}


def declare(corpus: Corpus, how: Denoising) -> spec.TaskSpec:
  """Declare the task of pre-training on a corpus.

  Args:
    corpus: the corpus.
    how: how to turn texts into examples.

  Returns:
    The registered task, `<corpus>_<objective>`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: another task has the name.
  """
  task = spec.TaskSpec(
    name=f"{corpus.name}_{how.objective}",
    benchmark="pretraining",
    dataset=corpus.name,
    module=MODULE,
    source=spec.FILE,
    splits={split: split for split in corpus.splits},
    content={"corpus": corpus.content(), "how": dataclasses.asdict(how)},
  )
  spec.add(task)
  _corpora[task.name] = corpus
  return task


def declare_mixture(
  corpora: Sequence[Corpus], how: Denoising
) -> spec.MixtureSpec:
  """Declare the tasks of several corpora, and their mixture by rate.

  Args:
    corpora: at least one, with different names.
    how: how to turn texts into examples.

  Returns:
    The registered mixture.

  Raises:
    ValueError: no corpora, or two with the same name.
  """
  names = [corpus.name for corpus in corpora]
  if not names or len(set(names)) < len(names):
    raise ValueError(
      f"CORPORA are {', '.join(names) or 'none'}; expected at least one, each "
      "with a name of its own."
    )
  rates = {declare(corpus, how).name: corpus.rate for corpus in corpora}
  mixture = spec.MixtureSpec(
    f"{'_'.join(names)}_{how.objective}_mixture", rates, MODULE
  )
  spec.add(mixture)
  return mixture


def of_task(name: str) -> Corpus:
  """Return the corpus of a task."""
  return _corpora[name]


def read(path: str) -> Iterator[Document]:
  """Read a text file document by document.

  Args:
    path: see `Text`.

  Yields:
    The documents, none of them empty.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another format, not text, or no documents.
  """
  for _, document in _numbered(path):
    yield document


def _numbered(path: str) -> Iterator[tuple[int, Document]]:
  """Read documents, each with the number of its first line."""
  count = 0
  suffixes = [suffix.lower() for suffix in pathlib.Path(path).suffixes]
  if suffixes and suffixes[-1] in _OPENERS:
    suffixes.pop()
  ending = suffixes[-1] if suffixes else ""
  if ending not in _FORMATS:
    raise ValueError(
      f"{path}: expected a file name that ends in {', '.join(_FORMATS)}, or "
      f"in one of these with {' or '.join(_OPENERS)} after it."
    )
  lines = _lines(path)
  documents = (
    _json_documents(path, lines) if ending == ".jsonl" else _blocks(lines)
  )
  for line, document in documents:
    if document.text.strip():
      count += 1
      yield line, document
  if not count:
    raise ValueError(f"{path}: the corpus is empty; expected some text.")


def _lines(path: str) -> Iterator[str]:
  if not files.is_file(path):
    raise FileNotFoundError(f"No corpus file {path}.")
  opener = _OPENERS.get(pathlib.PurePath(path).suffix.lower())
  number = 0
  try:
    with contextlib.ExitStack() as stack:
      file: BinaryIO = stack.enter_context(files.open_file(path))
      if opener is not None:
        file = stack.enter_context(opener(file))
      for line in plain_text.decode(path, file):
        number += 1
        yield line
  except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(
      f"{path}: cannot be decompressed after line {number}: {error}."
    ) from error


def _blocks(lines: Iterator[str]) -> Iterator[tuple[int, Document]]:
  """Divide plain text at blank lines."""
  block: list[str] = []
  number = 0
  for number, line in enumerate(lines, 1):
    if line.strip():
      block.append(line)
    elif block:
      yield number - len(block), Document("".join(block))
      block = []
  if block:
    yield number - len(block) + 1, Document("".join(block))


def _json_documents(
  path: str, lines: Iterator[str]
) -> Iterator[tuple[int, Document]]:
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    row = plain_text.json_value(path, line.rstrip(), number)
    document = _document(row)
    if document is None:
      raise ValueError(
        f"{path}:{number}: expected an object with the text 'text', or with "
        "the texts 'inputs' and 'targets'."
      )
    yield number, document


def _document(row: Any) -> Document | None:
  if not isinstance(row, dict):
    return None
  texts = [row.get(key) for key in ("text", "inputs", "targets")]
  whole, question, answer = (t if isinstance(t, str) else None for t in texts)
  if whole is not None:
    return Document(whole)
  if question is None or answer is None or not answer.strip():
    return None
  return Document(question, answer)


def _sha256(path: str) -> str:
  if not files.is_file(path):
    raise FileNotFoundError(f"No corpus file {path}.")
  return files.file_sha256(path)
