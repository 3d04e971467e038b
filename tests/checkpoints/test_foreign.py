"""What no reader takes: the error says what it is, and what to do.

Where the advice is a command, it is run.
"""

import json
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints import foreign, peft, prompts, restore
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.jobs import load

VALUES = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


def advised(message):
  """Take the Python code out of an error's advice."""
  return re.search(r'python -c "(.*?)"(?:\n|\.|,|$)', message, re.S).group(1)


def message_of(path, read=load.load):
  with pytest.raises(CheckpointError) as raised:
    read(path)
  text = str(raised.value)
  assert "Error:" not in text, text
  assert "bytes after the end" not in text
  return text


def write_zip(path, names):
  with zipfile.ZipFile(path, "w") as archive:
    for name in names:
      archive.writestr(name, b"x")


def write_old_pickle(path, names):
  del names
  path.write_bytes(pickle.dumps({"a": 1}, protocol=2))


FILES = {  # name -> (how to write it, what the error says)
  "p.pt": (lambda p: write_zip(p, ["p/data.pkl"]), "a pickle of torch.save"),
  "p.bin": (lambda p: write_old_pickle(p, []), "a pickle of torch.save"),
  "p.npz": (lambda p: np.savez(p, prompt=VALUES), r"\(\.npz\) of prompt"),
  "p.json": (lambda p: p.write_text(json.dumps(VALUES.tolist())), "JSON"),
  "p.safetensors": (lambda p: save_file({"p": VALUES}, p), "a safetensors"),
  "p.zip": (lambda p: write_zip(p, ["a.txt"]), "Unpack it first"),
  "p.gz": (lambda p: p.write_bytes(b"\x1f\x8b\x08"), "Unpack it first"),
  "p.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n"), "HDF5"),
  "p.html": (lambda p: p.write_text("<!DOCTYPE html>"), "a web page"),
  "pointer": (
    lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "git lfs pull",
  ),
  "empty": (lambda p: p.touch(), "an empty file"),
  "notes.txt": (
    lambda p: p.write_text("Dear diary"),
    "a file that begins with b'Dear diary'. This project does",
  ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("read", [load.load, restore.open_checkpoint])
def test_files(tmp_path, name, read):
  write, says = FILES[name]
  write(tmp_path / name)
  assert re.search(says, message_of(tmp_path / name, read))


@pytest.mark.parametrize("name", ["p.npz", "p.json", "p.safetensors"])
def test_the_advice_makes_a_prompt(tmp_path, name, monkeypatch):
  write, _ = FILES[name]
  write(tmp_path / name)
  monkeypatch.chdir(tmp_path)
  exec(advised(message_of(tmp_path / name)).replace("'NAME'", "'p'"), {})
  tuned = load.load(tmp_path / "prompt.npy")
  np.testing.assert_array_equal(tuned.runs.delta.virtual[0], VALUES)


def test_an_adapter_of_an_old_peft(tmp_path, monkeypatch):
  """`adapter_model.bin`: the advice is run, and the adapter is read."""
  torch = pytest.importorskip("torch")
  folder = tmp_path / "adapter"
  peft.write_vectors(folder, VALUES)
  arrays = load_file(folder / peft.WEIGHTS)
  (folder / peft.WEIGHTS).unlink()
  tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
  torch.save(tensors, folder / peft.PICKLE)
  message = message_of(folder)
  assert "adapter_model.bin, a pickle, which is never opened" in message
  assert message == message_of(folder, peft.read)
  assert "weights_only=True" in message_of(folder / peft.PICKLE)
  monkeypatch.chdir(folder)
  exec(advised(message), {})
  np.testing.assert_array_equal(load.load(folder).runs.delta.virtual[0], VALUES)


def test_a_vector_file_of_torch(tmp_path, monkeypatch):
  torch = pytest.importorskip("torch")
  torch.save(torch.from_numpy(VALUES), tmp_path / "prompt.pt")
  monkeypatch.chdir(tmp_path)
  code = re.search(r'-c "(.*?)", with', message_of(tmp_path / "prompt.pt"))
  exec(code.group(1), {})
  tuned = load.load(tmp_path / "prompt.npy")
  np.testing.assert_array_equal(tuned.runs.delta.virtual[0], VALUES)


def test_a_folder_lists_what_could_be_named(tmp_path, checkpoints):
  """T5X's and Orbax's checkpoints, models, adapters, prompts; in order."""
  shutil.copytree(checkpoints["orbax"], tmp_path / "checkpoint_40")
  for step in (5, 300):
    shutil.copytree(checkpoints["t5x"], tmp_path / f"checkpoint_{step}")
  shutil.copytree(checkpoints["hf"], tmp_path / "hf")
  (tmp_path / "checkpoint_9.orbax-checkpoint-tmp-1" / "state").mkdir(
    parents=True
  )
  peft.write_vectors(tmp_path / "lora", VALUES)
  (tmp_path / "notes.txt").write_text("mine")
  for read in (load.load, restore.open_checkpoint):
    assert (
      "Name one of these: checkpoint_5 (a T5X checkpoint), checkpoint_40 (an "
      "Orbax checkpoint), checkpoint_300 (a T5X checkpoint), hf (a Hugging "
      "Face model), lora (a PEFT adapter)."
    ) in message_of(tmp_path, read)


def test_a_folder_of_prompts_is_listed_too(tmp_path):
  for name in ("b.npy", "a.npy"):
    prompts.write_npy(tmp_path / name, VALUES)
  assert "['a.npy', 'b.npy']. Name one of the files." in message_of(tmp_path)
  assert "Name one of these: a.npy (a prompt), b.npy (a prompt)" in message_of(
    tmp_path, restore.open_checkpoint
  )


def test_a_folder_of_runs_is_listed(tmp_path):
  for name in ("run10", "run9"):
    (tmp_path / name / "bundles").mkdir(parents=True)
  assert "these: run9 (a run), run10 (a run)." in message_of(tmp_path)


def test_long_lists_are_cut(tmp_path):
  names = [f"checkpoint_{step} (x)" for step in range(40)]
  assert foreign.spelled(names).startswith("28 more, checkpoint_28 (x), ")


def test_a_model_is_no_prompt(checkpoint):
  assert "a model without a prompt: name a prompt" in message_of(checkpoint)


def test_a_folder_of_nothing(tmp_path):
  assert "nothing in it" in message_of(tmp_path)


@pytest.mark.parametrize("prefix", ["model.", "module.", "a.b.model."])
def test_names_with_a_wrapper(checkpoints, tmp_path, prefix, monkeypatch):
  folder = shutil.copytree(checkpoints["hf"], tmp_path / "model")
  file = folder / "model.safetensors"
  tensors = load_file(file)
  save_file({prefix + name: array for name, array in tensors.items()}, file)
  message = message_of(folder, restore.open_checkpoint)
  assert f"found {prefix!r} before them" in message
  monkeypatch.chdir(folder)
  exec(advised(message), {})
  assert load_file(file).keys() == tensors.keys()
  assert restore.open_checkpoint(folder).params


def test_an_encoder_alone(checkpoints, tmp_path):
  folder = shutil.copytree(checkpoints["hf"], tmp_path / "model")
  file = folder / "model.safetensors"
  encoder = {
    name: array
    for name, array in load_file(file).items()
    if name.startswith(("encoder", "shared"))
  }
  save_file(encoder, file)
  message = message_of(folder, restore.open_checkpoint)
  assert message.count("\n") == 1
  assert "expected an encoder and a decoder; found an encoder alone" in message


def test_gelu_spelt_out_is_the_same(checkpoints, tmp_path):
  folder = shutil.copytree(checkpoints["hf"], tmp_path / "model")
  config = json.loads((folder / "config.json").read_text())
  config["feed_forward_proj"] = "gated-gelu_new"
  (folder / "config.json").write_text(json.dumps(config))
  ours, theirs = map(restore.open_checkpoint, (folder, checkpoints["hf"]))
  from prompt_tuning.checkpoints import sizes

  assert sizes.infer_config(ours) == sizes.infer_config(theirs)
