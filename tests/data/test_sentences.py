"""Where a sentence ends."""

import pytest

from prompt_tuning.data import sentences

CASES = {
  'He said: "Go." "No!" she cried. Then?': [
    'He said: "Go."',
    '"No!" she cried.',
    "Then?",
  ],
  "Mr. Brown and J. Smith came (so they say.) At 5 p.m. they left.": [
    "Mr. Brown and J. Smith came (so they say.)",
    "At 5 p.m. they left.",
  ],
  "It cost 3.50. 20 was paid... Not by me. It was I. You know.": [
    "It cost 3.50.",
    "20 was paid...",
    "Not by me.",
    "It was I.",
    "You know.",
  ],
  "a  list of words\n * * *\n\nanother\tone\r\nthe end. of it": [
    "a list of words",
    "another one",
    "the end. of it",
  ],
  "\u201cWell.\u201d \u2018Wait\u2026\u2019 Ärger nagt! \u00c9t\u00e9.": [
    "\u201cWell.\u201d",
    "\u2018Wait\u2026\u2019",
    "Ärger nagt!",
    "\u00c9t\u00e9.",
  ],
  " \n ": [],
}


@pytest.mark.parametrize("text", CASES)
def test_sentences(text):
  assert sentences.split(text) == CASES[text]
