"""k-shot subsets: their names, and the draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import kshot, spec


def test_the_name_says_it_all():
  name = "taskless_super_glue_cb_v102_k16_seed3"
  assert spec.KShot.from_name(name) == spec.KShot(
    "taskless_super_glue_cb_v102", 16, 3
  )
  task = spec.task(name)
  assert task.kshot == spec.KShot.from_name(name)
  assert task.name == name
  assert task.label_words == ("entailment", "contradiction", "neutral")


@pytest.mark.parametrize(
  "name", ["a_k0_seed1", "a_k4", "a_seed1", "a_k4_seed", "_k4_seed1", "a_k-1"]
)
def test_other_names_are_no_subsets(name):
  assert spec.KShot.from_name(name) is None


def test_a_task_without_training_split_has_no_shots():
  with pytest.raises(ValueError, match="no training split, but 4 shots"):
    spec.get("taskless_super_glue_axb_v102_k4_seed0")


def test_a_mixture_has_no_shots():
  with pytest.raises(ValueError, match="is a mixture of"):
    spec.get("squad_to_race_k4_seed0")


labels_and_k = st.integers(1, 5).flatmap(
  lambda k: st.tuples(
    st.just(k),
    st.permutations([c for c in "abc" for _ in range(k)] + ["a"] * 7),
    st.integers(0, 2**31),
  )
)


@given(labels_and_k)
def test_k_of_every_class_ascending_and_repeatable(drawn):
  k, labels, seed = drawn
  rows = kshot.choose(labels, k, seed)
  assert rows == sorted(set(rows))
  counts = {c: sum(labels[r] == c for r in rows) for c in "abc"}
  assert counts == {"a": k, "b": k, "c": k}
  assert kshot.choose(labels, k, seed) == rows


@given(labels_and_k)
def test_fewer_shots_are_a_subset_of_more(drawn):
  k, labels, seed = drawn
  assert set(kshot.choose(labels, 1, seed)) <= set(
    kshot.choose(labels, k, seed)
  )


def test_seeds_differ_and_cover_all_rows():
  labels = [i % 2 for i in range(40)]
  draws = [tuple(kshot.choose(labels, 4, seed)) for seed in range(100)]
  assert len(set(draws)) > 95
  counts = np.bincount(np.concatenate(draws), minlength=40)
  # 100 draws of 4 from 20: 20 expected for each row, deviation 4.
  assert counts.min() > 5
  assert counts.max() < 40


def test_the_rows_of_a_seed_stay_what_they_are():
  """A recorded subset must be drawn again by later versions."""
  rows_of = [list(range(c, 16, 2)) for c in (0, 1)]
  orders = [np.random.default_rng([5, c]).permutation(8) for c in (0, 1)]
  expected = {rows_of[c][i] for c in (0, 1) for i in orders[c][:2]}
  assert set(kshot.choose([0, 1] * 8, 2, 5)) == expected
  assert kshot.choose([0, 1] * 8, 2, 0) == [3, 4, 7, 8]


def test_rows_without_a_class_are_never_chosen():
  labels = [None, 0, None, 0, 0]
  assert kshot.choose(labels, 3, 1) == [1, 3, 4]


def test_too_few_rows_and_no_shots_are_errors():
  with pytest.raises(ValueError, match=r"Class 1 has 1 rows; expected"):
    kshot.choose([0, 0, 1], 2, 0)
  with pytest.raises(ValueError, match="k >= 1, got 0"):
    kshot.choose([0], 0, 0)


def test_scarce_classes_give_what_they_have():
  labels = ["a", "b", "a", "a"]
  with pytest.raises(ValueError, match="Class 'b' has 1 rows; expected"):
    kshot.choose(labels, 2, 0)
  rows = kshot.choose(labels, 2, 0, scarce_classes=True)
  assert len(rows) == 3
  assert 1 in rows
  assert spec.task("tacred_v100_k16_seed0").scarce_classes
