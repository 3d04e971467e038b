"""`prompt-tuning convert`, from every format to every other."""

import os
import pathlib

import numpy as np
import pytest

from prompt_tuning.checkpoints import hf, prompts, restore, sizes, t5x_writer
from prompt_tuning.core import tree
from prompt_tuning.jobs.convert_job import PROMPTS
from prompt_tuning.launch import convert, diff, main
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network

VALUES = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def random_leaves(size, **changes):
  rng = np.random.default_rng(0)
  config = t5_config.get(size, vocab_size=32, **changes)
  params = {
    path: rng.standard_normal(struct.shape, np.float32)
    for path, struct in tree.flatten(network.abstract_params(config)).items()
  }
  return restore.leaves_of(tree.unflatten(params)), config


@pytest.fixture
def t5x(tmp_path):
  """A tiny T5 1.1 at step 12, with optimizer state."""
  leaves, _ = random_leaves("t5_1_1_tiny")
  state = {"param_states/a/v": leaves["encoder/encoder_norm/scale"]}
  path = tmp_path / "source" / "checkpoint_12"
  t5x_writer.write_t5x(path, leaves, step=12, state=state)
  return str(path)


def equal(a, b):
  return diff.main([str(a), str(b)]) == 0


def test_t5x_to_hf_and_back(t5x, tmp_path, capsys):
  model, back = tmp_path / "model", tmp_path / "checkpoint_12"
  assert main.main(["convert", t5x, str(model), "--to", "hf"]) == 0
  said = capsys.readouterr().out
  assert "relative_attention_max_distance is set to T5's usual 128" in said
  assert main.main(["convert", str(model), str(back), "--to", "t5x"]) == 0
  assert equal(t5x, model)
  assert equal(t5x, back)
  assert restore.open_checkpoint(back).step == 12  # from the folder's name


def test_dtype_step_and_state(t5x, tmp_path, capsys):
  out = tmp_path / "out"
  arguments = [
    t5x,
    str(out),
    "--to",
    "t5x",
    "--dtype",
    "bfloat16",
    "--step",
    "9",
  ]
  assert convert.main(arguments) == 0
  assert "step 9 in a folder called checkpoint_9" in capsys.readouterr().out
  source, result = map(restore.open_checkpoint, (t5x, out))
  assert result.step == 9
  for name, leaf in source.params.items():
    expected = leaf.read().astype("bfloat16")
    np.testing.assert_array_equal(result.params[name].read(), expected)
  assert result.open_state()["param_states/a/v"].dtype == np.float32


def test_a_tied_model(tmp_path):
  tied = {"mlp_activations": ("relu",), "logits_via_embedding": True}
  leaves, config = random_leaves("t5_1_1_tiny", **tied)
  hf.write_hf(tmp_path / "a", leaves, config)
  a, b, c = (str(tmp_path / name) for name in ("a", "checkpoint_0", "c"))
  assert convert.main([a, b, "--to", "t5x"]) == 0
  assert convert.main([b, c, "--to", "hf"]) == 0
  assert equal(a, c)
  checkpoint = restore.open_checkpoint(c)
  assert sizes.infer_config(checkpoint).logits_via_embedding


def test_the_size_is_checked(t5x, tmp_path, capsys):
  out = str(tmp_path / "out")
  arguments = [t5x, out, "--to", "hf", "--config"]
  assert convert.main([*arguments, "t5_1_1_small"]) == 2
  assert "expected float32[512]; found float32[4]" in capsys.readouterr().err
  assert convert.main([*arguments, "t5_1_1_smol"]) == 2
  assert "Did you mean 't5_1_1_small'?" in capsys.readouterr().err
  assert not os.path.exists(out)


def test_an_incomplete_model(t5x, tmp_path, capsys):
  leaves = dict(restore.open_checkpoint(t5x).params)
  del leaves["decoder/layers_1/mlp/wo/kernel"]
  t5x_writer.write_t5x(tmp_path / "c", leaves)
  out = str(tmp_path / "out")
  assert convert.main([str(tmp_path / "c"), out, "--to", "hf"]) == 2
  error = capsys.readouterr().err
  assert "decoder/layers_1/mlp/wo/kernel: expected float32[8, 4]" in error
  assert not os.path.exists(out)


@pytest.mark.parametrize("there", ["hf", "t5x", "npy"])
def test_nothing_is_overwritten_unless_told(there, t5x, tmp_path, capsys):
  """Another format's checkpoint may be in the way too."""
  out = tmp_path / "out"
  if there == "npy":
    prompts.write_npy(out, VALUES)
  else:
    assert convert.main([t5x, str(out), "--to", there]) == 0
  before = out.stat()
  arguments = [t5x, str(out), "--to", "hf", "--dtype", "bfloat16"]
  assert convert.main(arguments) == 2
  assert "something already there" in capsys.readouterr().err
  assert out.stat() == before
  assert convert.main([*arguments, "--overwrite"]) == 0
  result = restore.open_checkpoint(out)
  assert result.format == "hf"
  assert {leaf.dtype.name for leaf in result.params.values()} == {"bfloat16"}


def test_a_folder_that_is_no_checkpoint_is_never_replaced(
  t5x, tmp_path, capsys
):
  home = tmp_path / "home"
  (home / "papers").mkdir(parents=True)
  (home / "papers" / "thesis.tex").write_text("years of work")
  (home / "model.safetensors").write_text("no model")
  arguments = [str(t5x), str(home), "--to", "hf", "--overwrite"]
  assert convert.main(arguments) == 2
  assert "delete it yourself" in capsys.readouterr().err
  assert (home / "papers" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
  "flags",
  [
    ("--ignore", "encoder/prompt/("),
    ("--step", "99999999999"),
    ("--step", "-5"),
  ],
)
def test_bad_flags_are_refused(flags, t5x, tmp_path, capsys):
  with pytest.raises(SystemExit) as status:
    convert.main([str(t5x), str(tmp_path / "x"), "--to", "t5x", *flags])
  assert status.value.code == 2
  assert flags[0] in capsys.readouterr().err
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("spelling", ["./{}", "{}/", "../{1}/{0}", ".//{}"])
@pytest.mark.parametrize("kind", ["t5x", "orbax", "hf"])
def test_paths_as_users_write_them(
  kind, spelling, t5x, tmp_path, monkeypatch, capsys
):
  folder = pathlib.Path(t5x) if kind == "t5x" else tmp_path / kind
  if kind == "hf":
    assert convert.main([str(t5x), str(folder), "--to", "hf"]) == 0
  if kind == "orbax":
    import orbax.checkpoint as ocp

    flat = restore.open_checkpoint(t5x).params
    params = tree.unflatten({k: leaf.read() for k, leaf in flat.items()})
    whole = {"target": params, "state": {"step": np.int32(1)}}
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
    with ocp.Checkpointer(handler) as checkpointer:
      checkpointer.save(folder / "state", args=ocp.args.PyTreeSave(whole))
  monkeypatch.chdir(folder.parent)
  path = spelling.format(folder.name, folder.parent.name)
  assert diff.main([path, str(t5x)]) == 0
  capsys.readouterr()


@pytest.mark.parametrize("first", PROMPTS)
def test_prompts_there_and_back(tmp_path, first):
  second = {"npy": "peft", "peft": "npy"}[first]
  prompts.write_npy(tmp_path / "p.npy", VALUES)
  paths = [str(tmp_path / name) for name in ("p.npy", "a", "b")]
  assert convert.main([*paths[:2], "--to", first]) == 0
  assert convert.main([*paths[1:], "--to", second]) == 0
  assert restore.open_prompt(paths[2]).format == second
  assert equal(paths[0], paths[2])


def test_the_prompt_of_a_tuned_model(t5x, tmp_path, capsys):
  leaves = dict(restore.open_checkpoint(t5x).params)
  prompt = restore.leaves_of(tree.unflatten({prompts.PARAMETER: VALUES}))
  tuned = str(tmp_path / "checkpoint_20")
  t5x_writer.write_t5x(tuned, {**leaves, **prompt}, step=20)
  out = str(tmp_path / "p.npy")
  assert convert.main([tuned, out, "--to", "npy"]) == 0
  np.testing.assert_array_equal(np.load(out), VALUES)
  model = str(tmp_path / "model")
  assert convert.main([tuned, model, "--to", "hf"]) == 2
  assert f"{prompts.PARAMETER}: expected nothing" in capsys.readouterr().err
  ignore = ["--ignore", "encoder/prompt/.*"]
  assert convert.main([tuned, model, "--to", "hf", *ignore]) == 0
  assert equal(t5x, model)


def test_prompts_are_checked_against_the_model(tmp_path, capsys):
  prompts.write_npy(tmp_path / "p.npy", VALUES)
  paths = [str(tmp_path / name) for name in ("p.npy", "a")]
  arguments = [*paths, "--to", "peft", "--config"]
  assert convert.main([*arguments, "t5_1_1_base"]) == 2
  assert "[5, 768]; found [5, 4]" in capsys.readouterr().err
  assert convert.main([*arguments, "t5_1_1_tiny", "--dtype", "bfloat16"]) == 2
  assert "saved as float32" in capsys.readouterr().err
  assert not os.path.exists(paths[1])
  assert convert.main([*arguments, "t5_1_1_tiny"]) == 0


def test_a_prompt_is_no_model_and_a_model_no_prompt(t5x, tmp_path, capsys):
  prompts.write_npy(tmp_path / "p.npy", VALUES)
  out = str(tmp_path / "out")
  assert convert.main([str(tmp_path / "p.npy"), out, "--to", "hf"]) == 2
  assert convert.main([t5x, out, "--to", "npy"]) == 2
  assert "a prompt [P, H]; found nothing" in capsys.readouterr().err
  assert not os.path.exists(out)


def test_all_damage_is_told_at_once(t5x, tmp_path, capsys):
  kernels = ("wi_0", "wo")
  for name in kernels:
    folder = pathlib.Path(t5x) / f"target.encoder.layers_0.mlp.{name}.kernel"
    (chunk,) = folder.glob("0.0")
    chunk.write_bytes(chunk.read_bytes()[:-3])
  assert convert.main([str(t5x), str(tmp_path / "x"), "--to", "hf"]) == 2
  message = capsys.readouterr().err
  assert message.startswith(f"error: {t5x}: 2 mismatches")
  for name in kernels:
    assert f"encoder/layers_0/mlp/{name}/kernel" in message
  assert not (tmp_path / "x").exists()


def test_damage_of_the_optimizer_state_is_told_too(tmp_path, capsys):
  leaves, _ = random_leaves("t5_1_1_tiny")
  name = "encoder/layers_0/mlp/wo/kernel"
  state = {"param_states/a/v": leaves[name]}
  source = tmp_path / "checkpoint_12"
  t5x_writer.write_t5x(source, leaves, step=12, state=state)
  dotted = f"target.{name.replace('/', '.')}"
  for folder in (dotted, "state.param_states.a.v"):
    (source / folder / "0.0").unlink()
  for kind, count in (("hf", 1), ("t5x", 2)):
    assert convert.main([str(source), str(tmp_path / "x"), "--to", kind]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {source}: {count} mismatch")
    assert f"  {name}: expected float32[8, 4], readable" in message
    assert ("  state/param_states/a/v: " in message) == (kind == "t5x")
  assert not (tmp_path / "x").exists()


def test_damaged_metadata_is_told_with_what_is_missing(t5x, tmp_path, capsys):
  folder = pathlib.Path(t5x)
  leaves = dict(restore.open_checkpoint(t5x).params)
  del leaves["decoder/layers_1/mlp/wo/kernel"]
  folder = tmp_path / "checkpoint_12"
  t5x_writer.write_t5x(folder, leaves)
  (folder / "target.decoder.logits_dense.kernel" / ".zarray").write_text("{")
  assert convert.main([str(folder), str(tmp_path / "x"), "--to", "hf"]) == 2
  message = capsys.readouterr().err
  assert message.startswith(f"error: {folder}: 2 mismatches")
  assert "decoder/layers_1/mlp/wo/kernel: expected float32[8, 4]" in message
  assert "decoder/logits_dense/kernel: expected an array" in message
