"""Every way in which a checkpoint can fail to fit, in one error."""

import os
import re
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.checkpoints import loading, restore, strict
from prompt_tuning.checkpoints.errors import CheckpointError, Mismatch
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network

KERNEL = "encoder/layers_0/attention/query/kernel"
NORM = "decoder/decoder_norm/scale"


def leaves(flat):
  return restore.leaves_of(tree.unflatten(flat))


def fitted(found, flat, **options):
  return strict.match("path", leaves(found), flat, **options)


def mismatches(found, flat, **options):
  with pytest.raises(CheckpointError) as caught:
    fitted(found, flat, **options)
  assert all(m.path in str(caught.value) for m in caught.value.mismatches)
  return [str(m) for m in caught.value.mismatches]


def test_a_perfect_fit(flat):
  assert fitted(flat, flat).keys() == flat.keys()


def test_missing_surplus_misnamed_and_misshapen_in_one_error(flat):
  found = dict(flat)
  del found[NORM]  # missing
  found["zzz/qqq"] = np.ones(3, np.float32)  # surplus
  found["encoder/layers_0/attention/queries/kernel"] = found.pop(KERNEL)
  found["token_embedder/embedding"] = np.ones((25, 8), np.float32)
  found["encoder/encoder_norm/scale"] = np.ones(8, np.int32)
  assert mismatches(found, flat) == [
    f"{NORM}: expected float32[8]; found nothing.",
    "encoder/encoder_norm/scale: expected float32[8]; found int32[8].",
    "encoder/layers_0/attention/queries/kernel: expected nothing; found "
    f"float32[8, 12]. Did you mean {KERNEL!r}?",
    f"{KERNEL}: expected float32[8, 12]; found nothing. Did you mean "
    "'encoder/layers_0/attention/queries/kernel'?",
    "token_embedder/embedding: expected float32[24, 8]; found float32[25, 8].",
    "zzz/qqq: expected nothing; found float32[3].",
  ]


@given(data=st.data())
def test_exactly_the_changed_leaves_are_listed(flat, data):
  names = sorted(flat)
  some = st.lists(st.sampled_from(names), unique=True, max_size=4)
  gone, reshaped = data.draw(some), data.draw(some)
  added = [f"new/{name}" for name in data.draw(some)]
  found = {k: v for k, v in flat.items() if k not in gone}
  for name in set(reshaped) - set(gone):
    found[name] = np.zeros((*flat[name].shape, 1), np.float32)
  found.update(dict.fromkeys(added, np.zeros(1, np.float32)))
  changed = {*gone, *reshaped, *added}
  if not changed:
    assert fitted(found, flat).keys() == flat.keys()
    return
  with pytest.raises(CheckpointError) as caught:
    fitted(found, flat)
  assert [m.path for m in caught.value.mismatches] == sorted(changed)


def test_another_size_is_named(checkpoints):
  target = network.abstract_params(t5_config.get("t5_1_1_small"))
  with pytest.raises(CheckpointError) as caught:
    restore.restore(checkpoints["t5x"], target)
  message = str(caught.value)
  assert "choose the model of the checkpoint's size" in message
  assert "vocab_size=24, emb_dim=8, num_heads=4, head_dim=3" in message
  wanted = set(tree.flatten(target))
  assert wanted == {m.path for m in caught.value.mismatches} & wanted


def test_another_variant(checkpoints, tools):
  """T5 1.0 asked for, T5 1.1 given: other kernels, and a head too many."""
  import dataclasses

  config = dataclasses.replace(
    tools.config, mlp_activations=("relu",), logits_via_embedding=True
  )
  with pytest.raises(CheckpointError) as caught:
    restore.restore(checkpoints["hf"], tools.structs(config))
  paths = [m.path for m in caught.value.mismatches]
  assert "decoder/logits_dense/kernel" in paths
  assert len(paths) == 1 + 3 * (2 + 3)  # wi, wi_0, wi_1 of each layer


def test_too_few_and_too_many_layers(checkpoints, tools):
  import dataclasses

  for layers in (2, 4):
    config = dataclasses.replace(tools.config, num_decoder_layers=layers)
    for scan in (False, True):
      scanned = dataclasses.replace(config, scan_layers=scan)
      with pytest.raises(CheckpointError) as caught:
        restore.restore(checkpoints["t5x"], tools.structs(scanned))
      layer = min(layers, 3)
      assert {
        re.match(r"decoder/layers_\d", m.path).group()
        for m in caught.value.mismatches
      } == {f"decoder/layers_{layer}"}


def test_ignored_leaves(flat):
  found = {**flat, "a/x": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
  assert fitted(found, flat, ignore=["a/.*", "b"]).keys() == flat.keys()
  assert mismatches(found, flat, ignore=["a/.*"]) == [
    "b: expected nothing; found float32[1]."
  ]


def test_a_pattern_that_ignores_nothing_is_an_error(flat):
  for pattern in ("encoder/prompts/.*", KERNEL):  # misspelt; not surplus
    assert mismatches(flat, flat, ignore=[pattern]) == [
      f"ignore={pattern!r}: expected a surplus leaf it matches; found nothing."
    ]


def test_nothing_is_loaded_when_one_leaf_does_not_fit(
  checkpoints, tools, monkeypatch
):
  def load(*_):
    raise AssertionError("arrays were read before the tree was checked")

  monkeypatch.setattr(loading, "load", load)
  target = tools.structs()
  target["decoder"]["decoder_norm"]["scale"] = jax.ShapeDtypeStruct((9,), "f4")
  with pytest.raises(CheckpointError, match=NORM):
    restore.restore(checkpoints["t5x"], target)


@pytest.mark.parametrize(
  ("found", "wanted", "fits"),
  [
    ("float32", "bfloat16", True),
    ("bfloat16", "float32", True),
    ("float16", "float32", True),
    ("float64", "float32", True),
    ("int32", "int32", True),
    ("int32", "float32", False),
    ("float32", "int32", False),
    ("int32", "int8", False),
    ("bool", "float32", False),
  ],
)
def test_dtypes(found, wanted, fits):
  have = {"a": np.zeros(2, found)}
  target = {"a": jax.ShapeDtypeStruct((2,), wanted)}
  if fits:
    assert fitted(have, target).keys() == {"a"}
  else:
    assert len(mismatches(have, target)) == 1


@pytest.mark.parametrize(
  "path", ["nowhere", "hdfs://name/checkpoint_1", "empty", "file", "steps"]
)
def test_paths_that_are_no_checkpoint(tmp_path, tools, path):
  (tmp_path / "empty").mkdir()
  (tmp_path / "file").write_text("text")
  (tmp_path / "steps" / "checkpoint_5").mkdir(parents=True)
  (tmp_path / "steps" / "checkpoint_40").mkdir()
  name = path if "://" in path else str(tmp_path / path)
  messages = {
    "hdfs://name/checkpoint_1": "Copy the folder here first",
    "steps": r"Name one of these: checkpoint_5 \(a checkpoint\), checkpoint_40",
    "nowhere": "found nothing",
  }
  with pytest.raises(CheckpointError, match=messages.get(path, "expected a")):
    restore.restore(name, tools.structs())


def test_a_folder_that_cannot_be_listed(checkpoints, tools, monkeypatch):
  """Root may list anything, so the refusal is simulated."""

  def refuse(path):
    raise PermissionError(13, "Permission denied", path)

  monkeypatch.setattr(restore.os, "listdir", refuse)
  with pytest.raises(CheckpointError, match="Permission denied"):
    restore.restore(checkpoints["t5x"], tools.structs())


def test_what_is_broken_is_listed_with_the_rest(flat):
  """A broken leaf is neither missing nor somebody's misspelt name."""
  found = {k: v for k, v in flat.items() if k not in (KERNEL, NORM)}
  found["encoder/layers_0/attention/queries/kernel"] = flat[KERNEL]
  broken = [
    Mismatch(KERNEL, "an array", "half of one"),
    Mismatch("config.json:d_model", "8", "9"),
  ]
  assert mismatches(found, flat, broken=broken) == [
    "config.json:d_model: expected 8; found 9.",
    f"{NORM}: expected float32[8]; found nothing.",
    "encoder/layers_0/attention/queries/kernel: expected nothing; found "
    "float32[8, 12].",
    f"{KERNEL}: expected an array; found half of one.",
  ]


def test_what_is_broken_and_unwanted_can_be_ignored(flat):
  broken = [Mismatch("encoder/prompt/prompt/prompt", "an array", "nothing")]
  ignore = ["encoder/prompt/.*"]
  assert fitted(flat, flat, broken=broken, ignore=ignore).keys() == flat.keys()
  assert len(mismatches(flat, flat, broken=broken)) == 1


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("t5x", f"target.{KERNEL.replace('/', '.')}/.zarray"),
    ("t5x", f"target.{KERNEL.replace('/', '.')}/0.0"),
    ("t5x", "checkpoint"),
    ("orbax", "state/manifest.ocdbt"),
    ("orbax", "state/d/pipe"),
    ("orbax", "state/_METADATA"),
    ("hf", "model.safetensors"),
    ("hf", "config.json"),
  ],
)
def test_pipes_do_not_hang(checkpoints, tools, tmp_path, kind, name):
  """Whatever file of a checkpoint is one; nobody would write into it."""
  path = shutil.copytree(checkpoints[kind], tmp_path / "model")
  (path / name).unlink(missing_ok=True)
  os.mkfifo(path / name)
  with pytest.raises(CheckpointError, match=r"pipe|expected a checkpoint"):
    restore.restore(path, tools.structs())
