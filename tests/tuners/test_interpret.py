"""Nearest tokens by cosine, against scikit-learn."""

import jax
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from prompt_tuning.tuners import interpret

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("chunk", [7, 64, 1_000])
def test_neighbours_equal_sklearn(monkeypatch, tolerance, chunk):
  monkeypatch.setattr(interpret, "_CHUNK", chunk)
  table = RNG.normal(size=(130, 16)).astype(np.float32)
  prompt = 40 * RNG.normal(size=(9, 16)).astype(np.float32)

  found = interpret.nearest_tokens(prompt, table, top=5)

  oracle = NearestNeighbors(n_neighbors=5, metric="cosine").fit(table)
  distances, ids = oracle.kneighbors(prompt)
  np.testing.assert_array_equal(found.ids, ids)
  np.testing.assert_allclose(
    found.cosines, 1 - distances, **tolerance["oracle"]
  )
  np.testing.assert_allclose(
    found.norms, np.sqrt((prompt**2).sum(-1)), **tolerance["oracle"]
  )


def test_embeddings_are_their_own_nearest_at_any_length():
  table = RNG.normal(size=(50, 8)).astype(np.float32)

  found = interpret.nearest_tokens(3 * table[[4, 31]], table, top=1)

  assert found.ids.tolist() == [[4], [31]]


def test_equally_near_tokens_are_listed_by_id(monkeypatch):
  monkeypatch.setattr(interpret, "_CHUNK", 3)
  table = np.ones((8, 4), np.float32)

  found = interpret.nearest_tokens(table[:1], table, top=5)

  assert found.ids.tolist() == [[0, 1, 2, 3, 4]]


def test_rows_beyond_the_tokens_are_never_neighbours():
  table = RNG.normal(size=(20, 4)).astype(np.float32)

  found = interpret.nearest_tokens(table[15:], table, top=2, num_tokens=10)

  assert found.ids.max() < 10


def test_zero_vectors_are_near_nothing():
  table = np.concatenate([np.zeros((1, 4)), -np.ones((2, 4))]).astype("f4")

  found = interpret.nearest_tokens(
    np.stack([np.zeros(4), np.ones(4)]).astype("f4"), table, top=1
  )

  assert found.cosines.tolist() == [[0.0], [0.0]]
  assert found.ids.tolist() == [[0], [0]]


def test_impossible_questions_are_named():
  table = np.ones((4, 3), np.float32)
  with pytest.raises(ValueError, match="same model"):
    interpret.nearest_tokens(np.ones((1, 2), np.float32), table)
  with pytest.raises(ValueError, match="5 neighbours among 4"):
    interpret.nearest_tokens(table, table, top=5)
  with pytest.raises(ValueError, match="change top or num_tokens"):
    interpret.nearest_tokens(table, table, top=1, num_tokens=5)


def test_several_prompts_are_read_at_once(tolerance):
  table = RNG.normal(size=(40, 8)).astype(np.float32)
  prompts = {"a": 3 * table[[4, 31, 7]], "b": table[[9]]}

  readings = interpret.read(prompts, table, 20)

  for name, (learned, control) in readings.items():
    alone = interpret.nearest_tokens(prompts[name], table, num_tokens=20)
    np.testing.assert_array_equal(learned.ids, alone.ids)
    np.testing.assert_allclose(
      control.norms, learned.norms, **tolerance["oracle"]
    )
    assert control.ids.shape == learned.ids.shape
  (learned, control) = readings["a"]
  assert learned.ids[0, 0] == 4
  words = [f"w{i}" for i in range(40)]
  line = interpret.line(learned, control, words.__getitem__)
  nearest = " ".join(words[i] for i in learned.ids[:, 0])
  cosines = [of.cosines[:, 0].mean() for of in (learned, control)]
  assert line == "{:.2f} ({:.2f})  {}".format(*cosines, nearest)


def test_control_has_the_norms_but_other_directions(tolerance):
  prompt = 30 * RNG.normal(size=(6, 64)).astype(np.float32)

  control = np.asarray(interpret.random_control(jax.random.key(0), prompt))

  norms = [np.linalg.norm(x, axis=-1) for x in (prompt, control)]
  np.testing.assert_allclose(*norms, **tolerance["oracle"])
  cosines = (prompt * control).sum(-1) / norms[0] ** 2
  assert np.abs(cosines).max() < 0.6
  again = interpret.random_control(jax.random.key(0), prompt)
  np.testing.assert_array_equal(control, again)


def test_prompts_near_tokens_differ_from_the_control():
  # The paper's protocol: vectors around tokens against random directions.
  table = RNG.normal(size=(300, 64)).astype(np.float32)
  prompt = 5 * table[:10] + RNG.normal(size=(10, 64)).astype(np.float32)

  found = interpret.nearest_tokens(prompt, table)
  control = interpret.nearest_tokens(
    interpret.random_control(jax.random.key(1), prompt), table
  )

  assert found.ids[:, 0].tolist() == list(range(10))
  assert found.cosines[:, 0].min() > 0.9 > 0.6 > control.cosines[:, 0].max()


def test_report_lists_positions_and_the_paper_s_observations():
  found = interpret.Neighbours(
    np.array([[1, 2], [1, 0], [3, 2]]),
    np.array([[0.9, 0.5], [0.8, 0.7], [0.7, 0.1]]),
    np.array([3.0, 4.0, 5.0]),
  )
  control = interpret.Neighbours(
    np.array([[0, 3]]), np.array([[0.2, 0.1]]), np.array([4.0])
  )

  text = interpret.report(found, control, "abcd".__getitem__, label_ids=[2])

  assert text.splitlines() == [
    "position  norm      nearest tokens (cosine)",
    "0         3.00      b (0.90)  c (0.50)",
    "1         4.00      b (0.80)  a (0.70)",
    "2         5.00      d (0.70)  c (0.10)",
    "mean cosine of the nearest token: 0.800 (random vectors: 0.200)",
    "norm: 4.00 ± 0.82 (random vectors: 4.00)",
    "positions that share their nearest token: 2",
    "positions with a class label among their neighbours: 2"
    " (random vectors: 0)",
  ]
