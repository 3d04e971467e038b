"""`prompt-tuning inspect`."""

import json

import numpy as np
import pytest

from prompt_tuning.checkpoints import peft, prompts, restore, t5x_writer
from prompt_tuning.launch import inspect, main
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """A tiny T5 with some optimizer state."""
  path = tmp_path_factory.mktemp("c") / "checkpoint_12"
  config = t5_config.get("t5_1_1_tiny")
  leaves = restore.leaves_of(network.abstract_params(config))
  leaves = {
    name: restore.leaves_of({"x": np.ones(leaf.shape, np.float32)})["x"]
    for name, leaf in leaves.items()
  }
  state = {"param_states/a/v": leaves["encoder/encoder_norm/scale"]}
  t5x_writer.write_t5x(
    path, leaves, step=12, dtype=np.dtype("bfloat16"), state=state
  )
  return str(path)


def test_text(checkpoint, capsys):
  assert main.main(["inspect", checkpoint]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == f"{checkpoint}: t5x, step 12"
  assert lines[1].startswith("size: t5_1_1_tiny (vocab_size=32128, emb_dim=4,")
  assert "encoder/layers_1/mlp/wi_0/kernel" in "\n".join(lines)
  (row,) = [line for line in lines if "token_embedder/embedding" in line]
  assert row.split(maxsplit=1)[1] == "bfloat16[32128, 4]"
  assert lines[-2] == "parameters: 257,856 values in 52 arrays, 0.5 MiB"
  assert lines[-1] == "optimizer state: 4 values in 1 arrays, 0.0 MiB"


def test_json(checkpoint, capsys):
  assert inspect.main([checkpoint, "--json"]) == 0
  report = json.loads(capsys.readouterr().out)
  assert report["format"] == "t5x"
  assert report["step"] == 12
  assert report["size"] == "t5_1_1_tiny"
  assert report["config"]["head_dim"] == 2
  assert report["params"]["decoder/logits_dense/kernel"] == {
    "shape": [4, 32128],
    "dtype": "bfloat16",
  }
  assert report["totals"] == {"arrays": 52, "values": 257856, "bytes": 515712}
  assert report["state"]["param_states/a/v"]["dtype"] == "float32"
  assert report["notes"] == []


def test_the_sample(shared_data, capsys):
  path = shared_data / "t5x_tiny" / "checkpoint_3"
  assert inspect.main([str(path)]) == 0
  text = capsys.readouterr().out
  assert "t5x, step 3" in text
  assert "parameters: 257,856 values in 52 arrays, 1.0 MiB" in text
  assert "optimizer state: 257,856 values" not in text  # v and three of (1,)
  assert "in 208 arrays" in text


def test_what_is_no_t5_is_still_shown(tmp_path, capsys):
  leaves = restore.leaves_of({"dense": {"kernel": np.ones((2, 3), np.float32)}})
  t5x_writer.write_t5x(tmp_path / "c", leaves)
  assert inspect.main([str(tmp_path / "c")]) == 0
  text = capsys.readouterr().out
  assert "dense/kernel  float32[2, 3]" in text
  assert "note: not the parameters of a T5" in text


def test_prompts(tmp_path, capsys):
  values = np.full((3, 4), 2, np.float32)
  prompts.write_npy(tmp_path / "p.npy", values)
  peft.write_vectors(tmp_path / "adapter", values)
  for name, kind in (("p.npy", "npy"), ("adapter", "peft")):
    assert inspect.main([str(tmp_path / name)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"{kind}, a prompt")
    assert lines[1].strip() == "float32[3, 4], mean norm 4"


def test_errors_go_to_stderr(tmp_path, capsys):
  assert inspect.main([str(tmp_path / "nothing")]) == 2
  streams = capsys.readouterr()
  assert streams.out == ""
  assert "found nothing" in streams.err
