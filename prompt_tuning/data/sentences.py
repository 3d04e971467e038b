"""Division of running text into sentences, by one rule.

A sentence ends at the end of its line. It also ends after `.`, `!`, `?` or `…`
and any closing quotes and brackets, if a blank follows and then a capital
letter or a digit, perhaps after an opening quote or bracket. A period after a
single capital letter other than `I`, or after an abbreviation of
`ABBREVIATIONS`, does not end a sentence. Text without letters and digits is not
a sentence. Wrapped lines must therefore be unwrapped first.
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
    text: text of a document.

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
  """Whether a sentence ends at a possible end."""
  following = line[end.end() :].lstrip(_OPENING)[:1]
  if not (following.isupper() or following.isdigit()):
    return False
  if end.group(0).rstrip() != ".":
    return True
  before = _WORD.search(line[: end.start()])
  word = before.group(0) if before else ""
  initial = len(word) == 1 and word.isupper() and word != "I"
  return not initial and word not in ABBREVIATIONS
