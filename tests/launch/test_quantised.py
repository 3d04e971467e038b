"""Commands and the notebook API on int8 and int4 weights."""

import numpy as np
import pytest

from prompt_tuning import api
from prompt_tuning.checkpoints import backbone, bundle, fingerprint, restore
from prompt_tuning.core import axes, tree
from prompt_tuning.jobs import abstract_setup
from prompt_tuning.jobs.settings import Dataset
from prompt_tuning.jobs.train_job import Experiment, ModelSource
from prompt_tuning.launch import main
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import quantized
from prompt_tuning.plans import tpu
from prompt_tuning.tuners.prompt import Prompt

STEP = 1_100_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory, train_flags):
  folder = tmp_path_factory.mktemp("int8") / "run"
  more = ("--gin.RESTORE_DTYPE='int8'", "--gin.CONTROLS=True")
  assert main.main(["train", *train_flags(folder, *more)]) == 0
  return folder


def test_training_leaves_integers_alone(trained):
  text = (trained / "summary.txt").read_text()
  assert "frozen weights: unchanged" in text
  _, last = bundle.read_latest(trained / "bundles")
  assert last.manifest["run"]["backbone"]["weights"] == "int8"
  assert not any("model/" in path for path in last.trainable)


@pytest.mark.parametrize("dtype", ["int8", "int4", "bfloat16"])
def test_weights_of_one_checkpoint_have_one_fingerprint(dtype, tiny_checkpoint):
  config = t5_config.get("t5_1_1_tiny")

  def load(name):
    return backbone.load(
      tiny_checkpoint, config, None, axes.STANDARD_RULES, name
    )

  held, floats = load(dtype), load("float32")
  assert held.fingerprint == floats.fingerprint
  assert floats.fingerprint == fingerprint.fingerprint(floats.params)
  assert held.weights_dtype == dtype
  if dtype in quantized.SCHEMES:
    assert fingerprint.fingerprint(held.params) != held.fingerprint


@pytest.mark.parametrize("scan", [False, True])
def test_a_mesh_restores_the_same_integers(scan, tiny_checkpoint):
  config = t5_config.get("t5_1_1_tiny", scan_layers=scan)
  mesh, rules = axes.make_mesh(4, 2), axes.FULLY_SHARDED_RULES
  one = backbone.load(tiny_checkpoint, config, None, rules, "int8")
  many = backbone.load(tiny_checkpoint, config, mesh, rules, "int8")
  assert one.fingerprint == many.fingerprint
  flat = tree.flatten(many.params)
  for path, leaf in tree.flatten(one.params).items():
    np.testing.assert_array_equal(np.asarray(leaf), np.asarray(flat[path]))
  stack = "encoder/layers" if scan else "encoder/layers_0"
  where = flat[f"{stack}/mlp/wi_0/kernel"].sharding.spec
  assert where[-2:] == ("data", "model")


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_a_prompt_of_int8_is_used_with_any_form(
  dtype, trained, tmp_path, common_flags, tiny_checkpoint
):
  flags = [
    *common_flags("prompt_eval"),
    f"--gin.CHECKPOINT_PATH='{tiny_checkpoint}'",
    f"--gin.PROMPT_FILE='{trained}'",
    f"--gin.EVAL_OUTPUT_DIR='{tmp_path}'",
    "--gin.EVALUATE_BY='rank'",
    f"--gin.RESTORE_DTYPE='{dtype}'",
  ]
  assert main.main(["eval", *flags]) == 0


@pytest.mark.parametrize("run", ["predict", "score"])
def test_inference(run, trained, tmp_path, common_flags, tiny_checkpoint):
  name = "prompt_infer" if run == "predict" else "prompt_score"
  flags = [
    *common_flags(name),
    f"--gin.CHECKPOINT_PATH='{tiny_checkpoint}'",
    f"--gin.PROMPT_FILE='{trained}'",
    f"--gin.INFER_OUTPUT_DIR='{tmp_path}'",
    "--gin.INFER_SPLIT='validation'",
    "--gin.RESTORE_DTYPE='int8'",
  ]
  command = "infer" if run == "predict" else "score"
  assert main.main([command, *flags]) == 0


def test_model_tuning_is_refused(tmp_path, train_flags, capsys):
  flags = train_flags(
    tmp_path / "model",
    "--gin.RESTORE_DTYPE='int8'",
    run="model_tuning",
    prompt=(),
  )
  assert main.main(["train", *flags]) != 0
  assert (
    "integers have no gradient. Set RESTORE_DTYPE" in capsys.readouterr().err
  )


def test_a_misspelt_dtype_is_refused(tmp_path, train_flags, capsys):
  flags = train_flags(tmp_path / "run", "--gin.RESTORE_DTYPE='int3'")
  assert main.main(["train", *flags]) != 0
  assert "RESTORE_DTYPE 'int3': expected" in capsys.readouterr().err


def test_restoring_converts_each_leaf_as_it_comes(tiny_checkpoint):
  """Largest first, and once each; what it is made into is what is kept."""
  seen = []

  def convert(path, leaf):
    seen.append(path)
    return {path: leaf[:1], f"{path}_more": leaf[:0]}

  checkpoint = restore.open_checkpoint(tiny_checkpoint)
  config = t5_config.get("t5_1_1_tiny")
  target = axes.restore_target(
    backbone.network.abstract_params(config),
    backbone.network.logical_axes(config),
    None,
    axes.STANDARD_RULES,
  )
  found = tree.flatten(restore.restore(checkpoint, target, convert=convert))
  assert sorted(seen) == sorted(checkpoint.params)
  assert len(found) == 2 * len(seen)
  sizes = [checkpoint.params[path].nbytes for path in seen]
  assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
  ("dtype", "share"), [("bfloat16", 1 / 2), ("int8", 1 / 4), ("int4", 5 / 32)]
)
def test_plans_count_the_bytes_that_are_held(dtype, share, tolerance):
  experiment = Experiment(
    t5_config.get("t5_1_1_small"),
    Dataset("skill_first", {"inputs": 16, "targets": 8}, 8, batching="fixed"),
    Prompt,
  )
  mesh = axes.make_mesh(4, 2)
  held, whole = (
    tpu.model_bytes(
      abstract_setup.describe(experiment, ModelSource(None, form), mesh)
    )
    for form in (dtype, "float32")
  )
  assert held / whole == pytest.approx(share, rel=tolerance["size"]["rtol"])


def test_the_notebook_api(tolerance):
  model = api.load_model(weights="int8")
  floats = api.load_model()
  assert model.backbone.fingerprint == floats.backbone.fingerprint
  held, whole = (quantized.nbytes(m.backbone.params) for m in (model, floats))
  assert held < 0.27 * whole
  texts = ["sort : dog cat bird", "count : red green"]
  a, b = (m.score(texts, ["bird", "two"]) for m in (model, floats))
  np.testing.assert_allclose(a, b, **tolerance["int8"])
