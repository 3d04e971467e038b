"""Rows to tokens: what templates write, cut, and never take for markup."""

import numpy as np
import pytest

from prompt_tuning.core.placement import FIRST_SOFT
from prompt_tuning.data import vocabulary
from prompt_tuning.prompting import rendering
from prompt_tuning.prompting.rendering import PLAIN, SENTINEL, Renderer
from prompt_tuning.prompting.template import parse


@pytest.fixture(scope="module")
def words():
  return vocabulary.Vocabulary(vocabulary.resolve("embedded:ladder_1"))


def renderer(words, source, format=SENTINEL):
  return Renderer(parse(source), words.encode, format)


def test_tokens_are_those_of_the_whole_text(words):
  """Where blanks divide the parts; the sentinel is one piece."""
  made = renderer(words, 'It was {"mask"} . {"field": "a"} and {"field": "b"}')
  row = made.render({"a": "the house", "b": " the  sea "})
  text = "It was <extra_id_0> . the house and the sea"
  assert row.ids.tolist() == words.encode(text)
  assert row.text == "It was <extra_id_0> . the house and the  sea"
  assert row.ids.dtype == np.int32


def test_parts_that_touch_form_no_new_words(words):
  made = renderer(words, '{"mask"}. "{"field": "a"}"{"field": "b"}s')
  row = made.render({"a": "house", "b": ""})
  text = '<extra_id_0>. "house"s'
  assert words.decode(row.ids) == words.decode(words.encode(text))
  assert row.ids[0] == words.sentinel(0)
  blank = {p for p in words.pieces(row.ids) if p.startswith("▁")}
  assert not blank & {"▁house", "▁s"}


def test_an_empty_field_leaves_no_trace(words):
  made = renderer(words, '{"field": "a"} {"field": "b"} was {"mask"}')
  row = made.render({"a": "", "b": "it"})
  assert row.ids.tolist() == words.encode("it was <extra_id_0>")


@pytest.mark.parametrize(
  "text",
  [
    "<extra_id_0> and <extra_id_17>",
    'a {"mask"} {"soft": 3} b',
    "__import__('os').system('true')",
    "lambda x: x[:-1]",
  ],
)
def test_text_of_a_row_stays_text(words, text):
  made = renderer(words, '{"field": "a"} {"mask"}')
  ids = made.render({"a": text}).ids
  special = ids >= words.sentinel(99)
  assert np.flatnonzero(special).tolist() == [len(ids) - 1]
  plain = text.replace("<extra_id_", "<extra _id_").replace(" ", "")
  unknown = [words.encode(c)[-1] == words.unk_id for c in plain]
  if not any(unknown):
    assert words.decode(ids[:-1]).replace(" ", "") == text.replace(" ", "")


def test_soft_tokens_start_as_their_words(words):
  source = '{"soft": "the sea"} {"mask"} {"soft": 2} {"soft": "the", "id": 1}'
  made = renderer(words, source + ' {"soft_id": 1}{"soft": 2, "same": true}')
  sea = words.encode("the sea")
  assert made.soft == (*sea, None, None, *words.encode("the"), None)
  n = len(sea)
  row = made.render({})
  soft = (row.ids - FIRST_SOFT).tolist()
  mask = words.sentinel(0) - FIRST_SOFT
  the, last = n + 2, n + 3
  assert soft == [*range(n), mask, n, n + 1, the, the, last, last]
  assert row.text.endswith(
    f"[soft {the}] [soft {the}] [soft {last}] [soft {last}]"
  )


def test_a_plain_mask_is_nothing(words):
  made = renderer(words, 'It was {"mask"} . {"field": "a"}', PLAIN)
  row = made.render({"a": "so"})
  assert row.ids.tolist() == words.encode("It was . so")
  assert made.target(["good"]) == "good"
  with pytest.raises(ValueError, match="has no space before it"):
    made.target(["<!>A"])
  with pytest.raises(ValueError, match="2 masks; a plain target answers"):
    renderer(words, '{"mask"} {"mask"}', PLAIN)
  with pytest.raises(ValueError, match="Target format 'other'"):
    renderer(words, '{"mask"}', "other")


def test_targets_name_their_masks(words):
  made = renderer(words, '{"mask"} and {"mask"}')
  text = made.target(["good", "<!>A"])
  assert text == "<extra_id_0> good <extra_id_1>A"
  assert words.decode(words.encode(text)) == text
  with pytest.raises(ValueError, match="1 answers for 2 masks"):
    made.target(["good"])


def test_options_have_letters(words):
  source = '{"field": "q"} ? {"options": "o"} {"mask"}'
  values = {"q": "why", "o": ["this", "that"]}
  row = renderer(words, source).render(values)
  assert row.text == "why ? A. this B. that <extra_id_0>"
  several = '{"options": ["a", "b"]} {"mask"}'
  row = renderer(words, several).render({"a": "this", "b": "that"})
  assert row.text == "A. this B. that <extra_id_0>"
  with pytest.raises(ValueError, match="27 options; expected at most 26"):
    renderer(words, source).render({"q": "why", "o": ["x"] * 27})


def test_only_what_may_be_shortened_is(words):
  source = '{"placeholder": "a"} {"soft": 2} {"field": "b"} '
  source += '{"placeholder": "c"} {"mask"}'
  made = renderer(words, source)
  the = len(words.encode("the"))
  row = made.render({"a": "the " * 9, "b": "the " * 5, "c": "the " * 4})
  lengths = np.bincount(row.parts)
  assert lengths.tolist() == [9 * the, 2, 5 * the, 4 * the, 1]
  for limit, expected in {
    21 * the: [9 * the, 2, 5 * the, 4 * the, 1],
    3 + 10 * the: [3 * the, 2, 5 * the, 2 * the, 1],
    3 + 5 * the: [0, 2, 5 * the, 0, 1],
  }.items():
    stay = made.shorten(row.ids, row.parts, limit)
    assert len(stay) <= limit
    if limit < len(row.ids):
      found = np.bincount(row.parts[stay], minlength=5).tolist()
      assert found[1::3] == expected[1::3]
      assert found[2] == 5 * the
      assert abs(found[0] - found[3]) <= 1
      assert len(stay) == limit
  with pytest.raises(ValueError, match="may not be shortened, but there"):
    made.shorten(row.ids, row.parts, 2 + 5 * the)


@pytest.mark.parametrize(
  ("lengths", "room", "expected"),
  [
    ([9, 4], 20, [9, 4]),
    ([9, 4], 10, [6, 4]),
    ([9, 4], 7, [4, 3]),
    ([9, 1, 9], 12, [6, 1, 5]),
    ([3, 3], 0, [0, 0]),
    ([], 5, []),
  ],
)
def test_the_longest_loses_first(lengths, room, expected):
  assert rendering.levels(lengths, room) == expected


RELATION = (
  '{"field": "before", "shorten": "start"} {"meta": "first"} '
  '{"field": "between", "shorten": true} {"meta": "second"} '
  '{"field": "after", "shorten": true} {"soft": 1, "id": 0} {"meta": "subject"}'
  ' {"soft": 1, "id": 0} {"mask"} {"soft": 1, "id": 1} {"meta": "object"} '
  '{"soft": 1, "id": 1} .'
)


def test_a_sentence_is_shortened_around_its_arguments(words):
  made = renderer(words, RELATION)
  fields = {
    "before": "early in the cold morning the old",
    "first": "[E1] baker [/E1]",
    "between": "who lived by the lake sold",
    "second": "[E2] bread [/E2]",
    "after": "to all of his neighbours",
    "subject": "baker",
    "object": "bread",
  }
  row = made.render(fields)
  free = [0, 2, 4]
  fixed = sorted({*row.parts.tolist()} - {*free})
  room = int(np.isin(row.parts, fixed).sum())
  for limit in range(room, len(row.ids) + 1):
    stay = made.shorten(row.ids, row.parts, limit)
    assert len(stay) == limit
    ids, parts = row.ids[stay], row.parts[stay]
    for part in fixed:
      np.testing.assert_array_equal(
        ids[parts == part], row.ids[row.parts == part]
      )
    # What is next to an argument stays longest.
    before, all_before = ids[parts == 0], row.ids[row.parts == 0]
    np.testing.assert_array_equal(
      before, all_before[len(all_before) - len(before) :]
    )
    for part in free[1:]:
      kept = ids[parts == part]
      np.testing.assert_array_equal(
        kept, row.ids[row.parts == part][: len(kept)]
      )
    assert np.sum(ids == FIRST_SOFT) == np.sum(ids == FIRST_SOFT + 1) == 2
  with pytest.raises(ValueError, match="may not be shortened, but there"):
    made.shorten(row.ids, row.parts, room - 1)


def test_rows_must_have_the_fields(words):
  made = renderer(words, '{"mask"} {"field": "a"}')
  with pytest.raises(ValueError, match="has no field 'a'; it has: b"):
    made.render({"b": "x"})
  with pytest.raises(ValueError, match="'a' is a list; expected a text"):
    made.render({"a": ["x"]})


def test_parts_have_names(words):
  source = 'So {"mask"} {"soft": "it"} {"placeholder": "a"} {"options": "o"}'
  made = renderer(words, source)
  count = len(made.soft)
  names = made.describe([1, 1, count, 1, 1])
  last = f" to {count - 1}" * (count > 1)
  assert names == [
    "text",
    "mask 0",
    f"soft 0{last} 'it'",
    "field a (may be shortened)",
    "options o",
  ]
