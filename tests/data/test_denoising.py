"""Pre-training examples: nothing is lost, T5's counts, any choice as likely."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import denoising

TOKENS = st.lists(st.integers(3, 9_999), min_size=2, max_size=200)
DENSITIES = st.floats(0.01, 0.99)
MEANS = st.floats(1, 10)
KEYS = st.tuples(*[st.integers(0, 2**40)] * 4)
LAST = 20_000


def sentinel(index):
  """Sentinels count down from the last id, and no token is one."""
  return LAST - index


def corrupt(tokens, *key, density=0.15, mean=3.0):
  tokens = np.asarray(tokens, np.int32)
  return denoising.corrupt_spans(tokens, sentinel, density, mean, *key)


def is_sentinel(ids):
  return np.asarray(ids) > LAST // 2


def t5s_counts(length, density, mean):
  """Noise tokens and spans, as T5's `random_spans_noise_mask` counts them."""
  noise = int(np.clip(np.round(length * density), 1, length - 1))
  return noise, max(int(np.round(noise / mean)), 1)


def put_back(inputs, targets):
  """Replace every sentinel of the inputs by what follows it in the targets."""
  starts = np.flatnonzero(is_sentinel(targets))
  spans = np.split(targets, starts)[1:]
  taken = {int(span[0]): span[1:].tolist() for span in spans}
  return [t for i in inputs.tolist() for t in taken.get(i, [i])]


@given(TOKENS, DENSITIES, MEANS, KEYS)
def test_what_was_taken_out_can_be_put_back(tokens, density, mean, key):
  inputs, targets = corrupt(tokens, *key, density=density, mean=mean)
  assert put_back(inputs, targets) == tokens
  assert inputs.dtype == targets.dtype == np.int32


@given(TOKENS, DENSITIES, MEANS, KEYS)
def test_the_form_of_an_example(tokens, density, mean, key):
  """Text first, noise last, no empty span, sentinels in descending order."""
  inputs, targets = corrupt(tokens, *key, density=density, mean=mean)
  for row, begins, ends in ((inputs, False, True), (targets, True, False)):
    marks = is_sentinel(row)
    assert (marks[0], marks[-1]) == (begins, ends)
    assert not (marks[:-1] & marks[1:]).any()
    count = int(marks.sum())
    assert row[marks].tolist() == [sentinel(i) for i in range(count)]
  noise, spans = denoising.span_lengths(len(tokens), density, mean)
  assert len(inputs) == len(tokens) - noise + spans
  assert len(targets) == noise + spans


@given(st.integers(2, 5_000), DENSITIES, MEANS)
def test_counts_are_t5s(length, density, mean):
  noise, spans = t5s_counts(length, density, mean)
  # T5 never corrupts so much that no text is left between the spans.
  spans = min(spans, length - noise)
  assert denoising.span_lengths(length, density, mean) == (noise, spans)


def test_counts_of_t5s_own_setting():
  """568 tokens fill T5's rows of 512 and 114, EOS included."""
  noise, spans = denoising.span_lengths(568, 0.15, 3.0)
  assert (noise, spans) == (85, 28)
  assert 568 - noise + spans + 1 == 512
  assert noise + spans + 1 == 114
  for length in range(2, 600):
    counts = t5s_counts(length, 0.15, 3.0)
    assert denoising.span_lengths(length, 0.15, 3.0) == counts


def test_the_papers_example():
  """Raffel et al. 2020, figure 2, but that T5 always ends with noise."""
  text = "Thank you for inviting me to your party last week"
  words = text.split()
  ids = {word: 3 + i for i, word in enumerate(words)}
  names = {i: word for word, i in ids.items()}
  names |= {LAST: "<X>", LAST - 1: "<Y>"}
  tokens = [ids[word] for word in words]
  found = set()
  for key in range(200):
    rows = corrupt(tokens, key, density=0.4, mean=2.0)
    found.add(tuple(" ".join(names[i] for i in row.tolist()) for row in rows))
  assert (
    "Thank you <X> me to your party <Y>",
    "<X> for inviting <Y> last week",
  ) in found


def test_all_spans_are_equally_likely():
  """4 of 10 tokens in 2 spans: 5 ways to divide the text, 3 the noise."""
  found = collections.Counter()
  for document in range(1_000):
    for chunk in range(3):
      inputs, _ = corrupt(
        range(3, 13), 0, 0, document, chunk, density=0.4, mean=2.0
      )
      found[tuple(inputs.tolist())] += 1
  assert len(found) == 15
  # 3,000 draws, probability 1/15: standard deviation 13.7.
  assert max(abs(count - 200) for count in found.values()) < 5 * 13.7


@pytest.mark.parametrize("make", [corrupt, denoising.cut])
def test_examples_follow_from_the_key(make):
  tokens = np.arange(3, 203)
  once, again = make(tokens, 1, 2, 3, 4), make(tokens, 1, 2, 3, 4)
  for a, b in zip(once, again, strict=True):
    np.testing.assert_array_equal(a, b)
  others = [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)]
  rows = [tuple(make(tokens, *key)[0].tolist()) for key in others]
  assert len({tuple(once[0].tolist()), *rows}) == 5


def test_the_noise_does_not_change():
  """Pre-training runs depend on it, whatever the version of numpy."""
  inputs, targets = corrupt(range(10, 22), 0, 1, 2, 3, density=0.5, mean=2.0)
  assert inputs.tolist() == [10, 20000, 15, 16, 17, 19999, 19, 20, 19998]
  assert targets.tolist() == [20000, 11, 12, 13, 14, 19999, 18, 19998, 21]


@given(TOKENS, KEYS)
def test_a_cut_divides_the_text(tokens, key):
  inputs, targets = denoising.cut(np.asarray(tokens), *key)
  assert [*inputs, *targets] == tokens
  assert len(inputs) >= 1
  assert len(targets) >= 1


def test_all_cuts_are_equally_likely():
  places = collections.Counter(
    len(denoising.cut(np.arange(6), 0, 0, document, 0)[0])
    for document in range(2_000)
  )
  # 2,000 draws, probability 1/5: standard deviation 17.9.
  assert set(places) == {1, 2, 3, 4, 5}
  assert max(abs(count - 400) for count in places.values()) < 5 * 17.9


def test_an_answer_is_the_one_missing_span():
  inputs, targets = denoising.blank(
    np.array([5, 6, 7], np.int32), np.array([8, 9], np.int32), sentinel
  )
  assert inputs.tolist() == [5, 6, 7, LAST]
  assert targets.tolist() == [LAST, 8, 9]
  assert put_back(inputs, targets) == [5, 6, 7, 8, 9]


@given(st.integers(0, 100), st.integers(2, 30))
def test_chunks_leave_out_a_single_last_token_only(count, length):
  tokens = np.arange(count)
  pieces = list(denoising.chunks(tokens, length))
  assert all(len(piece) == length for piece in pieces[:-1])
  assert all(2 <= len(piece) <= length for piece in pieces)
  kept = [i for piece in pieces for i in piece.tolist()]
  assert kept == list(range(count - (count % length == 1)))


@pytest.mark.parametrize("tokens", [[], [7]])
def test_too_short_a_text_is_refused(tokens):
  with pytest.raises(ValueError, match="cannot be corrupted"):
    corrupt(tokens, 0)
  with pytest.raises(ValueError, match="cannot be cut in two"):
    denoising.cut(np.asarray(tokens), 0)
