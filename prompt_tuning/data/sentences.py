"""Sentences of running text, by one rule.

A sentence ends with its line; and behind `.`, `!`, `?` or `…`, with the quotes
and brackets that close there, where a blank follows and then, perhaps behind an
opening quote or bracket, a capital letter or a digit. A period behind a single
capital letter, or behind an abbreviation of `ABBREVIATIONS`, ends none. What
has neither a letter nor a digit is no sentence. So text whose lines are wrapped
has to be unwrapped; with a sentence on each line, none is divided wrongly.
"""

import re

_WORDS = (
  "Mr Mrs Ms Dr St Messrs Prof Rev Hon Capt Col Gen Lt Sgt Sen Gov Jr Sr Mt Ft "
  "No Vol vs cf etc e.g i.e Jan Feb Aug Sept Oct Nov Dec"
)
ABBREVIATIONS = frozenset(_WORDS.split())

# Straight and curly quotes, brackets.
_CLOSING = "\"'\u201d\u2019)\\]"
_OPENING = "\"'\u201c\u2018(["
_END = re.compile(rf"[.!?\u2026]+[{_CLOSING}]*(?P<blank>[^\S\n]+)")
_WORD = re.compile(r"[\w.]+$")


def split(text: str) -> list[str]:
  """Divide a text into its sentences.

  Args:
    text: of a document.

  Returns:
    Sentences in their order, with single blanks between words.
  """
  sentences: list[str] = []
  for line in text.splitlines():
    start = 0
    for end in _END.finditer(line):
      if _ends(line, end):
        sentences.append(line[start : end.start("blank")])
        start = end.end()
    sentences.append(line[start:])
  tidy = (" ".join(sentence.split()) for sentence in sentences)
  return [text for text in tidy if any(map(str.isalnum, text))]


def _ends(line: str, end: re.Match[str]) -> bool:
  """Whether a sentence ends where one may."""
  following = line[end.end() :].lstrip(_OPENING)[:1]
  if not (following.isupper() or following.isdigit()):
    return False
  if end.group(0).rstrip() != ".":
    return True
  before = _WORD.search(line[: end.start()])
  word = before.group(0) if before else ""
  initial = len(word) == 1 and word.isupper() and word != "I"
  return not initial and word not in ABBREVIATIONS
