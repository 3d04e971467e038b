"""`inspect`, `diff` and `convert` of what was tuned here, by older code too."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle, peft, restore, t5x_writer
from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta, LowRank
from prompt_tuning.core.placement import Placement
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import export, load
from prompt_tuning.launch import main
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.tuners.lora import LoRA

RUNS = pathlib.Path(__file__).parents[1] / "golden" / "before_methods"
TWO, AROUND = RUNS / "before_text", RUNS / "around_text"
BEST = TWO / "best" / "run_1" / "step_00000020"
LAST = TWO / "bundles" / "step_00000020"
NPY = TWO / "exports" / "seed1" / "prompt.npy"
TINY = t5_config.get("t5_1_1_tiny", vocab_size=32)


@pytest.fixture
def run(capsys):
  """Run a command; return its status and what it says."""

  def call(*words):
    status = main.main([str(word) for word in words])
    streams = capsys.readouterr()
    return status, streams.out, streams.err

  return call


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """The export of a prompt, and one of another method."""
  root = tmp_path_factory.mktemp("exports")
  export.export_all(str(BEST), str(root / "prompt"))
  method = LoRA(TINY.shape, rank=2, kernels=("enc_self/query",))
  rng = np.random.default_rng(0)
  a = rng.standard_normal((1, 2, 4, 2)).astype(np.float32)
  b = rng.standard_normal((1, 2, 2, 4)).astype(np.float32)
  delta = Delta(lowrank={"enc_self/query": LowRank(a, b)})
  origin = export.Origin(method, "skill_first", 12, "abc")
  export.export(Runs(delta, (Placement(),)), 0, root / "update", origin)
  return root / "prompt" / "seed1", root / "update"


@pytest.fixture(scope="module")
def tuned_model(tmp_path_factory):
  """The bundle of a model whose own weights were tuned, and that model."""
  root = tmp_path_factory.mktemp("tuned")
  rng = np.random.default_rng(0)
  params = {
    path: rng.standard_normal(struct.shape, np.float32)
    for path, struct in tree.flatten(network.abstract_params(TINY)).items()
  }
  described = {
    "runs": [{"name": "", "task": "t", "seed": 0}],
    "tuners": [],
    "backbone": {"fingerprint": "abc"},
    "start_step": 10,
  }
  arrays = {f"model/{path}": array[None] for path, array in params.items()}
  saved = bundle.Bundle({"run": described, "step": 2}, arrays)
  bundle.write(root / "step_00000002", saved)
  leaves = restore.leaves_of(tree.unflatten(params))
  t5x_writer.write_t5x(root / "checkpoint_12", leaves, step=12)
  return root / "step_00000002", root / "checkpoint_12"


def test_inspect_a_training(run):
  status, out, _ = run("inspect", TWO)
  assert status == 0
  lines = out.splitlines()
  assert lines[:4] == [
    f"{TWO}: a training",
    "method: Prompt",
    "task: skill_first",
    "backbone: d2c074858137583f",
  ]
  assert [line.split() for line in lines[4:7]] == [
    ["run", "best", "step", "score"],
    ["seed0", "9010", "0"],
    ["seed1", "9020", "100"],
  ]
  assert lines[7:] == [
    "bundles: steps 9020",
    "exports: exports/seed0, exports/seed1",
  ]


def test_inspect_bundles(run):
  _, out, _ = run("inspect", BEST)
  assert out.startswith(f"{BEST}: a bundle, step 9020\n")
  assert "run: seed1\nbest score: 100.0\n" in out
  assert "optimizer state: 0 values" in out
  _, out, _ = run("inspect", LAST, "--json")
  report = json.loads(out)
  assert report["about"]["runs"] == "seed0, seed1"
  (parameter,) = report["params"].values()
  assert parameter == {"shape": [2, 4, 96], "dtype": "float32"}
  assert report["state"]["step"]["dtype"] == "int32"


def test_inspect_exports_and_adapters(run, exported):
  prompt, update = exported
  _, out, _ = run("inspect", prompt)
  assert out.startswith(f"{prompt}: an export, step 9020\n")
  assert (
    "virtual tokens: 4 (encoder prefix)\nbeside it: README.md, peft, prompt.npy"
    in out
  )
  assert "  virtual  float32[4, 96]" in out
  for path in (update, update / "delta"):
    _, out, _ = run("inspect", path)
    assert f"{path}: an export, step 12\nmethod: LoRA\ntask: skill_first" in out
    assert "lowrank/enc_self/query/a  float32[2, 4, 2]" in out
  _, out, _ = run("inspect", update / "peft")
  assert "peft, an adapter" in out
  assert "SelfAttention.q.lora_A.weight  float32[2, 4]" in out


def test_a_damaged_export_is_one_error(run, exported, tmp_path):
  for name in ("delta.json", "delta.safetensors"):
    folder = tmp_path / name
    shutil.copytree(exported[1] / "delta", folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    status, out, err = run("inspect", folder)
    assert (status, out) == (2, "")
    assert "delta" in err.partition("expected")[2]


def test_damage_is_one_error(run, tmp_path):
  for name in ("manifest.json", "trainable.safetensors"):
    folder = tmp_path / name
    folder.mkdir()
    for path in BEST.iterdir():
      (folder / path.name).write_bytes(path.read_bytes())
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    for command in (("inspect", folder), ("diff", folder, BEST)):
      status, out, err = run(*command)
      assert (status, out) == (2, "")
      assert str(folder) in err


def test_diff_of_what_was_tuned(run, exported, tuned_model):
  prompt, update = exported
  for a, b, count in (
    (BEST, BEST, 2),
    (BEST, prompt, 2),
    (NPY, BEST, 2),
    (prompt / "peft", prompt / "delta", 2),
    (update, update / "peft", 2),
    (LAST, LAST, 4),
    (*tuned_model, 52),
  ):
    assert run("diff", a, b)[:2] == (0, f"{count} equal, 0 different\n")
  status, out, _ = run("diff", LAST, TWO)  # seed0 was better before
  assert status == 1
  assert out.startswith(
    "! seed0/virtual: 384 of 384 values differ, by at most "
  )
  assert out.endswith("3 equal, 1 different\n")
  assert run("diff", prompt, update)[1].endswith("0 equal, 4 different\n")


def test_convert_what_was_tuned(run, exported, tuned_model, tmp_path):
  prompt, update = exported
  for source in (BEST, prompt, prompt / "delta"):
    out = tmp_path / source.name
    assert run("convert", source, out, "--to", "npy")[0] == 0
    np.testing.assert_array_equal(np.load(out), np.load(NPY))
    assert run("convert", source, f"{out}-a", "--to", "peft")[0] == 0
    values = restore.open_prompt(f"{out}-a").values
    np.testing.assert_array_equal(values, np.load(NPY))
  adapter = tmp_path / "adapter"
  assert run("convert", update, adapter, "--to", "peft")[0] == 0
  ours, theirs = (peft.read(path)[1] for path in (adapter, update / "peft"))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  model = tmp_path / "model"
  assert run("convert", tuned_model[0], model, "--to", "hf")[0] == 0
  assert run("diff", model, tuned_model[1])[0] == 0
  back = tmp_path / "checkpoint_12"
  assert run("convert", tuned_model[0], back, "--to", "t5x")[0] == 0
  assert restore.open_checkpoint(back).step == 12


@pytest.mark.parametrize(
  ("source", "flags", "message"),
  [
    (TWO, ["npy"], "holds 2 runs"),
    (AROUND, ["npy"], "is more than vectors in the encoder"),
    (AROUND, ["peft"], "no adapter can be written"),
    (BEST, ["hf"], "convert it to npy or peft, or export it"),
    (BEST, ["npy", "--dtype", "bfloat16"], "saved as float32"),
    (BEST, ["peft", "--config", "t5_1_1_tiny"], "virtual: expected"),
  ],
)
def test_what_a_format_cannot_hold(run, tmp_path, source, flags, message):
  status, _, err = run("convert", source, tmp_path / "x", "--to", *flags)
  assert status == 2
  assert message in err
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["inspect", "diff", "convert", "export"])
@pytest.mark.parametrize(
  ("path", "message"),
  [
    ("hdfs://t5-data/x/checkpoint_1", "Copy the folder here first."),
    ("embedded:ladder_9", "ships with the package."),
    ("no/such/folder", "found nothing."),
  ],
)
def test_what_cannot_be_read_is_one_line(run, tmp_path, command, path, message):
  more = {
    "inspect": [],
    "diff": [NPY],
    "convert": [tmp_path / "x", "--to", "npy"],
    "export": [tmp_path / "x"],
  }
  status, out, err = run(command, path, *more[command])
  assert (status, out, err.count("\n")) == (2, "", 1)
  assert message in err


@pytest.mark.parametrize("command", ["export", "similar"])
def test_where_nothing_was_trained_no_model_is_asked_for(
  run, tmp_path, command
):
  (tmp_path / "empty").mkdir()
  for name in ("empty", "absent"):
    status, _, err = run(command, tmp_path / name, tmp_path / "x")
    assert status == 2
    assert f"{name}: expected what was trained: the MODEL_DIR of a run" in err
    assert "; found nothing" in err


def test_of_two_seeds_of_a_task_the_best_starts_others(tmp_path):
  """Where their scores are known; of two tasks nobody can say."""
  folder = tmp_path / "two"
  shutil.copytree(TWO, folder)
  bests = sorted((folder / "best").glob("run_*/step_*"))
  scores = [bundle.read(path).manifest["best"]["score"] for path in bests]
  best = bests[int(np.argmax(scores))]
  np.testing.assert_array_equal(
    load.encoder_vectors(str(folder)), load.encoder_vectors(str(best))
  )
