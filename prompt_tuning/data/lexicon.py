"""A small lexicon that says how good or bad a sentence finds its subject.

PPT (Gu et al. 2021) labelled sentences by RoBERTa, fine-tuned on Yelp's five
stars. This stands in for it where nothing else is at hand: it knows 132 English
words, and has no opinion on a sentence without any of them.
"""

import re

# From worst to best, with PPT's words.
CLASSES = ("terrible", "bad", "maybe", "good", "great")

_VALUES = {
  -2: "terrible horrible awful dreadful hideous wretched cruel hateful ghastly "
  "disgusting detestable murder agony despair hell vile misery abominable "
  "monstrous ruin curse torture horror evil",
  -1: "bad sad poor angry afraid fear pain sick ill ugly dirty weak wrong lost "
  "tired cold dull dark lonely unhappy anxious trouble wound death dead sorrow "
  "grief tears danger doubt shame guilt fail failure hate worse worst harsh "
  "bitter gloomy foolish false broken",
  1: "good kind happy glad pretty pleasant nice fine warm bright clever true "
  "gentle friend friendly smile smiled laugh laughed hope safe sweet calm rich "
  "strong honest pleased welcome better best comfort success brave merry well "
  "useful clean free like liked charming",
  2: "great excellent wonderful splendid delightful beautiful lovely perfect "
  "glorious magnificent joy love loved triumph happiness brilliant admirable "
  "superb noble heaven blessed delight darling marvellous",
}
_VALUE = {
  word: value for value, words in _VALUES.items() for word in words.split()
}
_NO = "not no never none nothing without cannot nor"
_NEGATIONS = frozenset(_NO.split())
_REACH = 3
_WORD = re.compile(r"[a-z]+(?:'t)?")


def label(sentence: str) -> str | None:
  """Label a sentence by the mean value of its words, -2 to 2.

  A word within three behind a negation counts as its opposite.

  Args:
    sentence: any text.

  Returns:
    One of `CLASSES`: `terrible` to -1.5, `bad` below -0.25, `maybe` to 0.25,
    `good` below 1.5, `great`; None without a word that is known.
  """
  values = []
  words = _WORD.findall(sentence.lower().replace("\u2019", "'"))
  for number, word in enumerate(words):
    value = _VALUE.get(word)
    if value is not None:
      before = words[max(0, number - _REACH) : number]
      values.append(-value if any(map(_negates, before)) else value)
  if not values:
    return None
  mean = sum(values) / len(values)
  if mean <= -1.5:
    return "terrible"
  if mean < -0.25:
    return "bad"
  if mean <= 0.25:
    return "maybe"
  return "good" if mean < 1.5 else "great"


def _negates(word: str) -> bool:
  return word in _NEGATIONS or word.endswith("n't")
