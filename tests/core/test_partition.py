"""One rule list decides what trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.core import partition, tree
from prompt_tuning.models.t5 import config


def _struct(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def _params(layers=3):
  model = {
    "token_embedder": {"embedding": _struct(32, 4)},
    "encoder": {
      f"layers_{i}": {
        "mlp": {"wi_0": {"kernel": _struct(4, 8)}, "wo": _struct(8, 4)}
      }
      for i in range(layers)
    },
  }
  rows = {"encoder": {"prompt": {"prompt": {"prompt": _struct(5, 4)}}}}
  return {"model": model, "tuner": rows}


def test_default_rules_train_the_tuner_and_freeze_the_model():
  built = partition.build(partition.TUNER_ONLY, _params())

  trainable, frozen = built.split(_params())

  assert list(tree.flatten(trainable)) == ["tuner/encoder/prompt/prompt/prompt"]
  assert set(frozen) == {"model"}
  assert built.count("train") == 5 * 4
  assert built.count("freeze") == 32 * 4 + 3 * (4 * 8 + 8 * 4)


def test_model_tuning_is_another_rule():
  trainable, frozen = partition.build(
    partition.EVERYTHING, params := _params()
  ).split(params)

  assert tree.flatten(trainable) == tree.flatten(params)
  assert frozen == {}


def test_one_leaf_that_trains_is_enough_for_its_folder():
  rules = [("model/encoder/.*_1/mlp/wo", "train"), *partition.TUNER_ONLY]
  built = partition.build(rules, _params())
  frozen = partition.build(partition.TUNER_ONLY, _params())
  assert built.trains("model")
  assert not frozen.trains("model")
  assert frozen.trains("tuner")


def test_first_match_wins():
  rules = [("model/.*/mlp/.*", "train"), (".*", "freeze")]

  modes = partition.build(rules, _params(layers=1)).modes

  assert [path for path, mode in modes.items() if mode == "train"] == [
    "model/encoder/layers_0/mlp/wi_0/kernel",
    "model/encoder/layers_0/mlp/wo",
  ]


def test_pattern_must_match_the_whole_path():
  with pytest.raises(ValueError, match=r"No rule matches 'tuner/encoder"):
    partition.build(
      [("model/.*", "freeze"), partition.Rule("encoder", "train", True)],
      _params(),
    )


def test_rule_that_matches_nothing_names_the_nearest_path():
  rules = [("tunr/.*", "train"), (".*", "freeze")]

  with pytest.raises(
    ValueError, match=r"'tunr/\.\*' matches no.*mean 'tuner/'"
  ):
    partition.build(rules, _params())


def test_optional_rule_may_match_nothing():
  rules = [
    partition.Rule("absent/.*", "train", optional=True),
    (".*", "freeze"),
  ]

  assert partition.build(rules, _params()).count("train") == 0


def test_shadowed_rule_is_an_error_that_names_both():
  rules = [(".*", "freeze"), ("tuner/.*", "train")]

  with pytest.raises(
    ValueError, match=r"'tuner/\.\*' decides nothing because '\.\*'"
  ):
    partition.build(rules, _params())


def test_all_faults_are_in_one_message():
  with pytest.raises(ValueError, match="do not fit") as error:
    partition.build([("backbone/.*", "freeze")], _params(layers=4))

  message = str(error.value)
  assert "'backbone/.*' matches no parameter" in message
  assert "No rule matches 'model/encoder/layers_0/mlp/wi_0/kernel'" in message
  assert "and 5 more" in message


@pytest.mark.parametrize(
  ("rule", "message"),
  [
    ((".*", "frozen"), "'frozen'.*Did you mean 'freeze'"),
    (("(", "train"), r"'\(' is not a regular expression"),
    (("a", "b", "c"), "a pair"),
    (".*", "a pair"),
  ],
)
def test_malformed_rule(rule, message):
  with pytest.raises(ValueError, match=message):
    partition.build([rule], _params())


def test_split_refuses_another_tree():
  built = partition.build(partition.TUNER_ONLY, _params(layers=2))

  with pytest.raises(ValueError, match=r"Unexpected: 'model/encoder/layers_2"):
    built.split(_params(layers=3))
  with pytest.raises(ValueError, match=r"Missing: 'model/encoder/layers_1"):
    built.split(_params(layers=1))


def test_merge_refuses_parts_in_each_others_place():
  built = partition.build(partition.TUNER_ONLY, params := _params())
  trainable, frozen = built.split(params)

  with pytest.raises(ValueError, match="part to train"):
    built.merge(frozen, trainable)


_KEYS = st.text("abc_0", min_size=1, max_size=3)
_TREES = st.recursive(
  st.integers(0, 9).map(np.zeros),
  lambda children: st.dictionaries(_KEYS, children, min_size=1, max_size=3),
  max_leaves=8,
).filter(lambda node: isinstance(node, dict))


@given(_TREES, st.sampled_from("abc_0"))
def test_merge_undoes_split(params, letter):
  rules = [
    partition.Rule(f".*{letter}.*", "train", optional=True),
    partition.Rule(".*", "freeze", optional=True),
  ]
  built = partition.build(rules, params)

  parts = built.split(params)
  merged = built.merge(*parts)

  paths = [set(tree.flatten(part)) for part in parts]
  assert not paths[0] & paths[1]
  assert all(letter in path for path in paths[0])
  assert not any(letter in path for path in paths[1])
  before, after = tree.flatten(params), tree.flatten(merged)
  assert before.keys() == after.keys()
  assert all(before[path] is after[path] for path in before)


def test_split_and_merge_trace_under_jit():
  params = {"a": jnp.arange(3.0), "b": jnp.ones((2, 2))}
  built = partition.build([("a", "train"), ("b", "freeze")], params)

  merged = jax.jit(lambda tree: built.merge(*built.split(tree)))(params)

  np.testing.assert_array_equal(merged["a"], params["a"])
  np.testing.assert_array_equal(merged["b"], params["b"])


def test_report_folds_layers_and_counts_as_the_paper():
  # Table 4 of the paper, as recomputed: 100 tokens on T5 1.1 base.
  size = config.get("t5_1_1_base")
  mlp = {"wi_0": {"kernel": _struct(size.emb_dim, size.mlp_dim)}}
  params = {
    "model": {f"layers_{i}": mlp for i in range(size.num_encoder_layers)}
    | {"final": {"layers_3": {"scale": _struct()}}},
    "tuner": {"prompt": _struct(100, size.emb_dim)},
  }
  built = partition.build(partition.TUNER_ONLY, params)

  lines = built.report().splitlines()

  assert [" ".join(line.split()) for line in lines[:4]] == [
    "path shape dtype arrays parameters rule",
    "train tuner/prompt 100x768 float32 1 76,800 tuner/.*",
    "freeze model/final/layers_3/scale scalar float32 1 1 model/.*",
    "freeze model/layers_{0..11}/wi_0/kernel 768x2048 float32 12 18,874,368"
    " model/.*",
  ]
  assert lines[4] == (
    "train: 76,800 of 18,951,169 parameters (0.4053%) in 1 arrays"
  )
  assert lines[5].startswith("freeze: 18,874,369 of ")

  assert built.summary().splitlines() == [
    "        parameters   share  arrays  dtype    rule",
    "train       76,800   0.41%       1  float32  tuner/.*",
    "freeze  18,874,369  99.59%      13  float32  model/.*",
  ]


def test_report_folds_no_unlike_layers():
  params = {f"layers_{i}": {"w": _struct(2 + i % 2)} for i in range(4)}

  report = partition.build(partition.EVERYTHING, params).report()

  assert "layers_{0,2}/w" in report
  assert "layers_{1,3}/w" in report
