"""The output of `data words`: templates, label words and rules in a table."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prompt_tuning.core import files, plain_text
from prompt_tuning.data import vocabulary
from prompt_tuning.prompting import label_words, rules, template
from prompt_tuning.prompting.label_words import Encode
from prompt_tuning.prompting.rendering import SENTINEL, Renderer

_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".jsonl")


def lines(
  paths: Sequence[str], vocabulary_file: str | None = None
) -> Iterator[str]:
  """Describe every template, every list of label words, and rules.

  Args:
    paths: files, or folders to search.
    vocabulary_file: None for the default.

  Yields:
    A line for each: its kind, and its counts or the reason why it is refused.
    The last line has the number of each kind.

  Raises:
    FileNotFoundError: no such path.
    ValueError: no vocabulary.
  """
  if vocabulary_file:
    vocabulary.configure(vocabulary_file)
  encode = vocabulary.load().encode
  totals: Counter[str] = Counter()
  for path in _files(paths):
    for place, counts, refusal in _entries(path, encode):
      totals["refused" if refusal else "read"] += 1
      shown = "  ".join(f"{name} {value}" for name, value in counts.items())
      yield f"{place}  {shown or f'refused: {refusal}'}"
  yield f"{totals['read']} read, {totals['refused']} refused"


def _files(paths: Sequence[str]) -> Iterator[str]:
  for name in paths:
    path = files.path(name)
    if not path.exists():
      raise FileNotFoundError(f"No file or folder {name}.")
    if not path.is_dir():
      yield name
      continue
    for below in sorted(path.rglob("*")):
      if below.suffix.lower() in _ENDINGS and below.is_file():
        yield str(below)


def _entries(
  path: str, encode: Encode
) -> Iterator[tuple[str, Mapping[str, int], str]]:
  """Read every entry of a file: (place, counts, why it is refused)."""
  read = _of_words
  try:
    text = list(plain_text.text_lines(path))
    is_json = path.lower().endswith((".json", ".jsonl"))
    if not is_json and any('"mask"' in line for line in text):
      read, count = _of_template, sum(bool(line.strip()) for line in text)
    elif rules.looks_like(path):
      read, count = _of_rules, 1
    else:
      count = label_words.count_lists(path)
  except ValueError as error:
    yield path, {}, _reason(path, error)
    return
  for number in range(count):
    place = f"{path} [{number}]"
    try:
      yield place, read(path, number, encode), ""
    except ValueError as error:
      yield place, {}, _reason(path, error)


def _reason(path: str, error: ValueError) -> str:
  return str(error).removeprefix(path).lstrip(":")


def _of_template(path: str, number: int, encode: Encode) -> Mapping[str, int]:
  parsed = template.read(path, number)
  soft = Renderer(parsed, encode, SENTINEL).soft
  return {
    "masks": parsed.masks,
    "fields": len(parsed.fields),
    "soft tokens": len(soft),
  }


def _of_words(path: str, number: int, encode: Encode) -> Mapping[str, int]:
  words = label_words.read(path, choice=number)
  return label_words.survey(words, encode).counts()


def _of_rules(path: str, number: int, encode: Encode) -> Mapping[str, int]:
  del number  # a file has one list
  return rules.survey(rules.read(path), encode).counts()
