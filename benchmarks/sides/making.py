"""Draw the frozen model and the prompt that all sides start from."""

import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks.sides import methods as both
from benchmarks.sides import work
from prompt_tuning.checkpoints import hf
from prompt_tuning.checkpoints.source import ArrayLeaf
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network


def write(
  folder: pathlib.Path,
  size: str,
  prompt_length: int,
  methods: Sequence[str] = (),
) -> None:
  """Write a Hugging Face checkpoint of random weights, and a prompt.

  Args:
    folder: where to.
    size: of `t5_config.SIZES`.
    prompt_length: P.
    methods: of `methods.METHODS`, whose first values to write too.
  """
  config = t5_config.get(size)
  rng = np.random.default_rng(0)
  leaves = {}
  for path, leaf in tree.flatten(network.abstract_params(config)).items():
    if path.endswith("scale"):
      array = np.ones(leaf.shape, np.float32)
    else:
      # As T5X draws them: with larger logits, rounding grows in training.
      fan_in = 1 if path.endswith("embedding") else leaf.shape[0]
      fan_in *= config.head_dim if "query" in path else 1
      drawn = rng.standard_normal(leaf.shape, np.float32)
      array = drawn * np.float32(fan_in**-0.5)
    leaves[path] = ArrayLeaf(path, array.shape, array.dtype, array)
  hf.write_hf(folder / work.MODEL, leaves, config)
  prompt = rng.uniform(-0.5, 0.5, (prompt_length, config.emb_dim))
  np.save(work.prompt_file(folder), prompt.astype(np.float32))
  for name in methods:
    both.write(folder, name, config)
