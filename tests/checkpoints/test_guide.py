"""The commands of docs/checkpoints.md, run as they stand there."""

import pathlib
import re
import shlex

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import prompts, restore, t5x_writer
from prompt_tuning.core import embedded, tree
from prompt_tuning.launch import main
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "checkpoints.md"


def blocks(language):
  """The guide's code blocks."""
  text = GUIDE.read_text(encoding="utf-8")
  return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.fixture
def files(tmp_path, monkeypatch):
  """A tiny model and prompt under the names of the guide."""
  monkeypatch.chdir(tmp_path)
  config = t5_config.get("t5_1_1_tiny")
  rng = np.random.default_rng(0)
  params = {
    path: rng.standard_normal(struct.shape, np.float32)
    for path, struct in tree.flatten(network.abstract_params(config)).items()
  }
  t5x_writer.write_t5x(
    "t5_1_1_lm100k_small/checkpoint_1100000",
    restore.leaves_of(tree.unflatten(params)),
    step=1_100_000,
  )
  prompts.write_npy("sst2.npy", params["token_embedder/embedding"][:10])
  return params


def test_commands(files):
  # The others download a model, or are of what a run learned.
  (commands,) = (block for block in blocks("sh") if " diff " in block)
  lines = [shlex.split(line) for line in commands.splitlines()]
  assert {words[1] for words in lines} == {"inspect", "convert", "diff"}
  for program, *words in lines:
    assert program == "prompt-tuning"
    assert main.main(words) == 0, words
  again = restore.open_prompt("sst2-again.npy").values
  np.testing.assert_array_equal(again, files["token_embedder/embedding"][:10])
  bfloat16 = restore.open_checkpoint("bfloat16/checkpoint_1100000")
  assert bfloat16.step == 1_100_000
  assert {leaf.dtype.name for leaf in bfloat16.params.values()} == {"bfloat16"}


def test_python(files):
  (code,) = blocks("python")
  names = {}
  exec(code, names)
  restored = jax.tree.map(np.asarray, tree.flatten(names["params"]))
  assert restored.keys() == files.keys()
  for path, array in files.items():
    np.testing.assert_array_equal(restored[path], array)


@pytest.mark.parametrize("name", embedded.names())
def test_what_t5x_needs_two_lines_for(name):
  """Its own code, at revision cc342d4, restored the first with these lines.

  Every parameter was the same, by its native and by its Orbax checkpointer;
  without them it stops at the missing `state/param_states`.
  """
  checkpoint = restore.open_checkpoint(f"{embedded.SCHEME}{name}")
  assert not checkpoint.open_state()
  (lines,) = blocks("gin")
  assert set(lines.split("\n")) == {
    "utils.RestoreCheckpointConfig.fallback_to_scratch = True",
    "utils.RestoreCheckpointConfig.assignment_map = ()",
    "",
  }
