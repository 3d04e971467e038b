"""First values of a prompt, against numpy and against the public behaviour."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.tuners import initializers
from prompt_tuning.tuners.initializers import (
  ClassLabels,
  InitializerContext,
  SampledVocabulary,
  TemplateWords,
  Text,
  Uniform,
)

V, H = 64, 6
TABLE = np.random.default_rng(0).normal(size=(V, H)).astype(np.float32)
# An invented vocabulary with the shapes that occur in T5's: one piece, several
# pieces, a bare space piece in front, a piece nobody knows.
WORDS = {
  "positive": [10],
  "negative": [11, 12],
  "entailment": [3, 20, 21, 22],
  "curly": [3, 2],
  "a b c": [30, 31, 32],
  "closed": [30, 1],
  "sentinel": [V],
}


def _tokenize(text):
  return WORDS.get(text, [])


def _context(**kwargs):
  return InitializerContext(embeddings=TABLE, tokenize=_tokenize, **kwargs)


def _make(initializer, length=5, context=None, seed=0, width=H):
  rng = jax.random.key(seed)
  context = _context() if context is None else context
  array = initializer(rng, (length, width), jnp.float32, context)
  assert array.shape == (length, width)
  assert array.dtype == jnp.float32
  return np.asarray(array)


def _ids(rows):
  """Row numbers of vectors that are copies of table rows."""
  return [int(np.flatnonzero((row == TABLE).all(-1)).item()) for row in rows]


@pytest.mark.parametrize("table", [TABLE, jnp.asarray(TABLE)])
def test_sampled_vocabulary_copies_distinct_rows(table):
  rows = _make(SampledVocabulary(20), 20, InitializerContext(embeddings=table))

  assert sorted(_ids(rows)) == list(range(20))


def test_sampled_vocabulary_draws_what_the_public_code_draws():
  # jax.random.choice over the first ids, specials 0 to 2 among them.
  expected = jax.random.choice(jax.random.key(7), 8, (8,), False)

  ids = _ids(_make(SampledVocabulary(8), 8, seed=7))

  assert ids == expected.tolist()
  assert {0, 1, 2} <= set(ids)


def test_sampled_vocabulary_reaches_the_whole_table():
  assert sorted(_ids(_make(SampledVocabulary(None), V))) == list(range(V))


def test_sampled_vocabulary_replaces_when_the_prompt_is_longer(caplog):
  ids = _ids(_make(SampledVocabulary(4), 50))

  assert set(ids) <= set(range(4))
  assert "prompt length 50 exceeds the population of 4" in caplog.text


def test_population_beyond_the_table_is_the_table(caplog):
  assert len(set(_ids(_make(SampledVocabulary(), V)))) == V
  assert not caplog.text  # nobody chose this population
  assert len(set(_ids(_make(SampledVocabulary(400), V)))) == V
  assert (
    "population is 400, but the embedding table has only 64 rows" in caplog.text
  )


@given(
  length=st.integers(1, 80),
  population=st.none() | st.integers(1, 100),
  seed=st.integers(0, 9),
)
@settings(max_examples=15, deadline=None)
def test_sampled_vocabulary_invariants(length, population, seed):
  size = min(population or V, V)

  ids = _ids(_make(SampledVocabulary(population), length, seed=seed))

  assert max(ids) < size
  assert length > size or len(set(ids)) == length


def test_uniform_of_the_public_code_is_flax_uniform():
  ours = _make(initializers.UNIFORM_PUBLIC, 100, seed=3)

  theirs = nn.initializers.uniform(0.5)(jax.random.key(3), (100, H))

  np.testing.assert_array_equal(ours, theirs)
  # numbers.md: mean 0.2495 over a prompt of the paper's size.
  wide = _make(initializers.UNIFORM_PUBLIC, 100, width=768)
  assert abs(wide.mean() - 0.25) < 0.002


def test_uniform_of_the_paper_is_centred():
  values = _make(initializers.UNIFORM_PAPER, 100, width=768)

  assert -0.5 <= values.min() < -0.499
  assert 0.499 < values.max() < 0.5
  assert abs(values.mean()) < 0.004


def test_class_labels_average_pieces_then_sample(tolerance):
  labels = ("positive", "entailment")
  initializer = ClassLabels(labels, SampledVocabulary(40))

  rows = _make(initializer, 6, seed=2)

  np.testing.assert_array_equal(rows[0], TABLE[10])
  np.testing.assert_allclose(
    rows[1], TABLE[[3, 20, 21, 22]].mean(0), **tolerance["mean"]
  )
  # As in the public code, the fallback draws for every position.
  np.testing.assert_array_equal(
    rows[2:], _make(SampledVocabulary(40), 6, seed=2)[2:]
  )


def test_class_labels_default_to_those_of_the_task(tolerance):
  context = _context(label_words=("negative", "positive"))

  rows = _make(ClassLabels(), 2, context)

  np.testing.assert_allclose(
    rows[0], TABLE[[11, 12]].mean(0), **tolerance["mean"]
  )
  np.testing.assert_array_equal(rows[1], TABLE[10])


def test_class_labels_from_gin_may_be_a_list():
  initializer = ClassLabels(["positive"])

  assert hash(initializer) == hash(ClassLabels(("positive",)))


def test_more_labels_than_positions_warns_and_names_them(caplog):
  rows = _make(ClassLabels(("positive", "negative", "entailment")), 1)

  np.testing.assert_array_equal(rows[0], TABLE[10])
  assert "no position is left for negative, entailment" in caplog.text


def test_the_papers_words_for_tasks_without_labels():
  assert initializers.RECORD_LABELS == (
    "commonsense",
    "reasoning",
    "reading",
    "comprehension",
  )
  assert initializers.WSC_LABELS == ("commonsense", "pronoun", "resolution")


def test_class_labels_with_the_real_vocabulary(shared_data, tolerance):
  # numbers.md section 10: pieces of label words, a bare space piece included.
  pieces = {
    "True": [10998],
    "False": [10747, 7, 15],
    "entailment": [3, 35, 5756, 297],
    "not_entailment": [59, 834, 35, 5756, 297],
  }
  model = str(shared_data / "t5_vocab" / "sentencepiece.model")
  vocabulary = sentencepiece.SentencePieceProcessor(model_file=model)
  table = np.random.default_rng(1).normal(size=(32_128, H)).astype(np.float32)
  context = InitializerContext(table, vocabulary.encode, tuple(pieces))

  rows = _make(ClassLabels(), 100, context)

  for row, ids in zip(rows, pieces.values(), strict=False):
    np.testing.assert_allclose(row, table[ids].mean(0), **tolerance["mean"])


def test_text_fills_one_row_per_token():
  rows = _make(Text("a b c", SampledVocabulary(20)), 5)

  assert _ids(rows[:3]) == [30, 31, 32]
  assert max(_ids(rows[3:])) < 20


def test_text_is_cut_with_a_warning(caplog):
  assert _ids(_make(Text("a b c"), 2)) == [30, 31]
  assert "has 3 tokens; PROMPT_LENGTH 2 cuts it: 'a b c'" in caplog.text


def test_bfloat16_table_gives_float32_rows(tolerance):
  table = jnp.asarray(TABLE, jnp.bfloat16)
  context = InitializerContext(embeddings=table, tokenize=_tokenize)

  rows = _make(ClassLabels(("negative",)), 1, context)

  expected = np.asarray(table, np.float32)[[11, 12]].mean(0)
  np.testing.assert_allclose(rows[0], expected, **tolerance["mean"])


@pytest.mark.parametrize(
  ("label", "message"),
  [
    ("missing", "'missing' has no tokens"),
    ("curly", "label 'curly' contains a piece"),
    ("  ", "is not a word; change CLASS_LABELS"),
    ("closed", "no end-of-sequence"),
    ("sentinel", "embedding table has 64 rows"),
  ],
)
def test_unusable_labels_are_named(label, message):
  with pytest.raises(ValueError, match=message):
    _make(ClassLabels(("positive", label)))


def test_missing_context_is_named():
  with pytest.raises(ValueError, match="Set CLASS_LABELS"):
    _make(ClassLabels())
  with pytest.raises(ValueError, match="needs a tokenizer"):
    _make(Text("a b c"), context=InitializerContext(embeddings=TABLE))
  with pytest.raises(ValueError, match="embedding table; restore"):
    _make(SampledVocabulary(), context=InitializerContext())


def test_table_of_another_width_is_an_error():
  with pytest.raises(ValueError, match=r"\(64, 6\), but prompt .* 8 features"):
    _make(SampledVocabulary(), width=8)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ClassLabels("positive"), "list of words"),
    (lambda: SampledVocabulary(0), "positive population"),
    (lambda: Uniform(0.5, 0.5), "low below high"),
  ],
)
def test_malformed_settings(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_soft_tokens_start_as_their_words():
  context = _context(soft_pieces=(10, None, 12))
  rows = _make(TemplateWords(), length=3, context=context)
  np.testing.assert_array_equal(rows[[0, 2]], TABLE[[10, 12]])
  other = _make(SampledVocabulary(), length=3)
  np.testing.assert_array_equal(rows[1], other[1])
  context = _context(soft_pieces=(None,))
  np.testing.assert_array_equal(
    _make(TemplateWords(), length=1, context=context),
    _make(SampledVocabulary(), length=1),
  )
  with pytest.raises(ValueError, match="1 soft tokens, but PROMPT_LENGTH"):
    _make(TemplateWords(), length=2, context=context)
  with pytest.raises(ValueError, match="needs a task whose template has soft"):
    _make(TemplateWords(), length=2)
