"""Checkpoints that T5X itself wrote, and what T5X computed with them.

T5X made the archive, see `data/README.md`; nothing here did.
"""

import pathlib
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints import restore, sizes
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import decoding, network

ARCHIVE = pathlib.Path(__file__).parent / "data" / "t5x_written.tar.xz"
CASES = [
  ("t5_1_1", "native", "t5x"),
  ("t5_1_1", "native_zstd", "t5x"),
  ("t5_1_1", "orbax", "orbax"),
  ("t5_1_0", "native", "t5x"),
  ("t5_1_0", "orbax", "orbax"),
]

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
  folder = tmp_path_factory.mktemp("t5x_written")
  with tarfile.open(ARCHIVE) as file:
    file.extractall(folder, filter="data")
  return folder


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, archive):
  """(reference, opened checkpoint, configuration, restored parameters)."""
  size, name, kind = request.param
  checkpoint = restore.open_checkpoint(archive / size / name / "checkpoint_1")
  assert checkpoint.format == kind
  assert checkpoint.step == 1
  assert checkpoint.notes == ()
  config = sizes.infer_config(checkpoint)
  params = restore.restore(checkpoint, network.abstract_params(config))
  reference = np.load(archive / size / "reference.npz", allow_pickle=False)
  return reference, config, params


def section(reference, prefix):
  return {
    name.removeprefix(prefix): reference[name]
    for name in reference.files
    if name.startswith(prefix)
  }


def batch(reference):
  arrays = section(reference, "batch/")
  arrays.pop("decoder_loss_weights")
  return {name: jnp.asarray(array) for name, array in arrays.items()}


def test_every_parameter_is_what_t5x_had(case):
  reference, _, params = case
  expected = section(reference, "params/")
  flat = tree.flatten(params)
  assert flat.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(np.asarray(flat[name]), array, err_msg=name)


def test_bfloat16_is_what_t5x_rounded_to(archive):
  path = archive / "t5_1_1" / "native_bfloat16" / "checkpoint_1"
  reference = np.load(archive / "t5_1_1" / "reference.npz", allow_pickle=False)
  expected = section(reference, "params/")
  opened = restore.open_checkpoint(path).params
  for name, array in expected.items():
    assert opened[name].dtype.name == "bfloat16"
    rounded = array.astype("bfloat16")
    np.testing.assert_array_equal(opened[name].read(), rounded, err_msg=name)


def test_adafactors_state(archive):
  for name in ("native", "orbax"):
    path = archive / "t5_1_1" / name / "checkpoint_1"
    checkpoint = restore.open_checkpoint(path)
    state = checkpoint.open_state()
    assert len(state) == 4 * len(checkpoint.params)  # m, v, v_col, v_row
    for param, leaf in checkpoint.params.items():
      v = state[f"param_states/{param}/v"]
      assert v.shape == leaf.shape
      assert (v.read() > 0).all()


def test_logits_and_scores(case, tolerance):
  reference, config, params = case
  inputs = batch(reference)
  logits = network.T5(config).apply({"params": params}, inputs)
  targets = inputs["decoder_target_tokens"]
  real = np.asarray(targets) > 0  # T5X lets padded queries see nothing
  np.testing.assert_allclose(
    np.asarray(logits)[real], reference["logits"][real], **tolerance["parity"]
  )
  scores = network.score(logits, targets)
  np.testing.assert_allclose(
    np.asarray(scores), reference["scores"], **tolerance["parity"]
  )


def decode(case, method):
  reference, config, params = case
  inputs = batch(reference)
  return decoding.generate(
    network.T5(config),
    params,
    {"encoder_input_tokens": inputs["encoder_input_tokens"]},
    length=inputs["decoder_target_tokens"].shape[1],
    method=method,
  )


def test_greedy_decoding(case):
  decoded = decode(case, decoding.Greedy())
  np.testing.assert_array_equal(decoded.tokens[:, 0], case[0]["greedy"])


def test_beam_search(case, tolerance):
  decoded = decode(case, decoding.BeamSearch(num_decodes=3, alpha=0.6))
  np.testing.assert_array_equal(decoded.tokens, case[0]["beam"])
  np.testing.assert_allclose(
    decoded.scores, case[0]["beam_scores"], **tolerance["parity"]
  )
