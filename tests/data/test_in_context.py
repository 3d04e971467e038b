"""An instruction and demonstrations before an input, in tokens and in text."""

import collections

import numpy as np
import pytest

from prompt_tuning.core.placement import FIRST_SOFT
from prompt_tuning.core.types import EOS_ID
from prompt_tuning.data import in_context, vocabulary
from prompt_tuning.data.in_context import InContext, Writer

ROWS = [("cat dog", "cat"), ("red green blue", "red"), ("two one", "two")]
OWN = "sun moon star"


@pytest.fixture(scope="module")
def words(vocabulary_file):
  return vocabulary.load(vocabulary_file)


def ids(words, text):
  return np.array([*words.encode(text), EOS_ID], np.int32)


def writer(words, limit=None, rows=ROWS, **settings):
  context = InContext(**{"shots": len(rows), "between": "gives", **settings})
  examples = [
    (number, ids(words, text), ids(words, answer))
    for number, (text, answer) in enumerate(rows)
  ]
  return Writer(context, words, examples, limit)


def test_a_seed_decides_which_rows_and_in_which_order():
  answers = list("abcabcabcabc")
  chosen = [in_context.choose(answers, 6, seed) for seed in range(20)]
  assert in_context.choose(answers, 6, 3) == chosen[3]
  assert len(set(map(tuple, chosen))) > 15
  assert all(len(set(rows)) == 6 for rows in chosen)
  assert any(rows != sorted(rows) for rows in chosen)
  for seed in range(20):  # more shots: the same and others
    fewer = in_context.choose(answers, 3, seed)
    assert set(fewer) < set(in_context.choose(answers, 7, seed))


@pytest.mark.parametrize("shots", range(1, 13))
def test_classes_are_balanced_as_far_as_they_go(shots):
  """Ten of one class, two of another, one of a third."""
  answers = list("aaaaaaaaaabbc")
  chosen = in_context.choose(answers, shots, seed=5)
  counts = collections.Counter(answers[row] for row in chosen)
  assert counts["c"] <= 1
  assert counts["b"] <= 2
  if shots >= 3:
    assert counts["c"] == 1
  if shots >= 5:
    assert counts["b"] == 2
  draws = [in_context.choose(answers, shots, s, False) for s in range(200)]
  share = np.mean([answers[row] == "a" for rows in draws for row in rows])
  assert 0.7 < share < 0.83  # 10 of 13


def test_more_shots_than_rows():
  with pytest.raises(ValueError, match=r"SHOTS is 3, but the .* only 2 rows"):
    in_context.choose(["a", "b"], 3, 0)


def test_what_stands_before_an_input(words):
  """The tokens are those of the whole text."""
  made = writer(words, instruction="take the first word")
  row, count = made.write(ids(words, OWN))
  text = (
    "take the first word cat dog gives cat red green blue gives red two one "
    "gives two sun moon star gives"
  )
  assert count == 3
  assert row.tolist() == ids(words, text).tolist()
  assert made.text(OWN, 3) == text


def test_an_instruction_alone(words):
  made = writer(words, rows=[], instruction="first", between="")
  row, count = made.write(ids(words, OWN))
  assert count == 0
  assert row.tolist() == ids(words, f"first {OWN}").tolist()
  assert made.text(OWN, 0) == f"first {OWN}"


def test_answers_take_the_places_of_sentinels(words):
  """As a template for span corruption writes inputs and targets."""
  rows = [
    (
      "A <extra_id_0> of <extra_id_1> here",
      "<extra_id_0> cup <extra_id_1> tea",
    ),
    ("A <extra_id_0> of <extra_id_1> here", "<extra_id_0> day <extra_id_1>"),
    ("<extra_id_0> it is", "yes"),
  ]
  made = writer(words, rows=rows)
  texts = [one.text for one in made.demonstrations]
  assert texts == ["A cup of tea here", "A day of here", "yes it is"]
  own = "A <extra_id_0> of <extra_id_1> here"
  row, _ = made.write(ids(words, own))
  assert row.tolist() == ids(words, f"{' '.join(texts)} {own}").tolist()
  assert made.text(own, 3) == f"{' '.join(texts)} {own}"


def test_whole_demonstrations_are_dropped_the_first_ones_first(words):
  whole, _ = writer(words).write(ids(words, OWN))
  own = ids(words, f"{OWN} gives")
  sizes = [len(one.ids) for one in writer(words).demonstrations]
  least = max(sizes) + 1
  counts = []
  for limit in range(least, len(whole) + 2):
    row, count = writer(words, limit).write(ids(words, OWN))
    assert len(row) <= limit
    kept = sum(sizes[3 - count :])
    assert row.tolist() == whole[len(whole) - len(own) - kept :].tolist()
    more = kept + (sizes[3 - count - 1] if count < 3 else 10**6)
    assert more + len(own) > limit, "there was room for one more"
    counts.append(count)
  assert counts == sorted(counts)
  assert counts[-1] == 3


def test_an_input_that_is_too_long_by_itself_loses_its_end(words):
  made = writer(words, 12, instruction="first")
  row, count = made.write(ids(words, "word " * 30))
  assert (len(row), count) == (12, 0)
  behind = [*words.encode("gives"), EOS_ID]
  assert row.tolist()[-len(behind) :] == behind
  assert row.tolist()[:1] == words.encode("first")[:1]


def test_an_input_that_would_lose_its_sentinel_is_an_error(words):
  made = writer(words, 12, rows=[], instruction="first")
  asked = ids(words, "word " * 30 + "<extra_id_0>")
  with pytest.raises(ValueError, match="would lose its sentinel"):
    made.write(asked)


def test_what_does_not_fit(words):
  with pytest.raises(ValueError, match=r"^Row 0 of .* chosen .*has 5 at most"):
    writer(words, 5)
  with pytest.raises(ValueError, match="raise TASK_FEATURE_LENGTHS of inputs"):
    writer(words, 5)
  with pytest.raises(ValueError, match="INSTRUCTION and the text around it"):
    writer(words, 5, rows=[], instruction="one two three four five six")
  virtual = np.array([FIRST_SOFT, EOS_ID])
  with pytest.raises(ValueError, match="a demonstration cannot hold learned"):
    Writer(InContext(shots=1), words, [(0, virtual, virtual)], None)


def test_a_warning_counts_what_was_dropped(words, caplog):
  texts = [OWN, "word " * 8]
  rows = [ids(words, text) for text in texts]
  examples = [{"inputs_pretokenized": text, "idx": 1} for text in texts]
  limit = len(writer(words).write(rows[0])[0])
  made = writer(words, limit)
  written, features = in_context.write_all(made, rows, examples)
  first, second = (feature["demonstrations"] for feature in features)
  assert second < first == 3
  assert features[0]["inputs_pretokenized"].endswith("star gives")
  assert all(f["idx"] == 1 for f in features)
  assert max(map(len, written)) <= limit
  assert "1 of 2 inputs have no room for all of 3" in caplog.text


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({}, "set INSTRUCTION or SHOTS"),
    ({"shots": -1}, "SHOTS is -1; expected a whole number, 0 or more"),
    ({"shots": 1.5}, "SHOTS is 1.5"),
    ({"shots": 2, "seed": -1}, "CONTEXT_SEED is -1"),
  ],
)
def test_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    InContext(**settings)
