"""Which words of a knowledge base stay: by numpy, written out."""

import numpy as np
import pytest

from prompt_tuning.prompting import refinement

RNG = np.random.default_rng(1)
THERE = np.array([[True] * 4, [True, True, False, False], [True] * 4])


def test_rare_words_go_and_no_class_is_emptied():
  prior = np.where(THERE, np.arange(12.0).reshape(3, 4), 0)
  prior[1] = [-5, -4, 0, 0]
  kept = refinement.frequent(prior, THERE, 0.5)
  assert kept.words.tolist() == [
    [False, False, False, True],
    [False, True, False, False],
    [True] * 4,
  ]
  assert kept.saved.tolist() == [False, True, False]
  assert (refinement.frequent(prior, THERE, 0).words == THERE).all()
  with pytest.raises(ValueError, match="expected 0 to below 1"):
    refinement.frequent(prior, THERE, 1.0)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("by_code", [False, True])
def test_relevance_word_by_word(classes, by_code, tolerance):
  there = THERE[:classes]
  answers = RNG.uniform(0.1, 1, size=(5, *there.shape))
  order = 1.0
  if by_code:
    answers = answers - answers.mean(0)
    order = refinement.order_of_code(classes)
  found = refinement.relevance(answers, there, order)
  for c, w in zip(*np.nonzero(there), strict=True):
    q = answers[:, c, w]
    names = answers[:, :, 0].T
    r = [q @ n / np.linalg.norm(q) / np.linalg.norm(n) for n in names]
    others = np.array([r[y] for y in range(classes) if y != c])
    mean = others.mean()
    if by_code:
      largest = np.abs(others).max()
      norm = np.linalg.norm(others / largest, ord=order) * largest
      mean = norm / (classes - 1) ** (1 / order)
    expected = -100 if r[c] < 0 else r[c] / mean
    np.testing.assert_allclose(found[c, w], expected, **tolerance["double"])
  assert (found[~there] == -np.inf).all()


def test_words_of_other_classes_go():
  """A planted word, which goes with another class's name, is dropped."""
  names = RNG.uniform(0, 1, size=(50, 3))
  answers = np.repeat(names[:, :, None], 4, axis=2)
  answers += RNG.uniform(0, 0.05, size=answers.shape)
  answers[:, 0, 2] = names[:, 1]
  values = refinement.relevance(answers, THERE)
  kept = refinement.relevant(values, THERE)
  expected = THERE.copy()
  expected[0, 2] = False
  np.testing.assert_array_equal(kept.words, expected)
  nothing = refinement.relevant(values, THERE, least=1e9)
  assert nothing.saved.all()
  assert nothing.words.sum(-1).tolist() == [1, 1, 1]
