"""Prompts as NumPy files."""

import io
import os

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prompt_tuning import api
from prompt_tuning.checkpoints import peft, prompts, restore
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import tree
from prompt_tuning.jobs import load

VALUES = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


def test_written_files_are_numpys_own(tmp_path):
  for name in ("prompt.npy", prompts.FILE_NAME):
    prompts.write_npy(tmp_path / name, VALUES)
    theirs = np.load(tmp_path / name, allow_pickle=False)
    assert theirs.dtype == np.float32
    np.testing.assert_array_equal(theirs, VALUES)
  assert sorted(os.listdir(tmp_path)) == [prompts.FILE_NAME, "prompt.npy"]


def test_the_originals_layout(tmp_path):
  """Written without a suffix, in a folder per step."""
  folder = tmp_path / "numpy_checkpoints" / "checkpoint_1100100"
  folder.mkdir(parents=True)
  with open(folder / "encoder.prompt.prompt.prompt", "wb") as file:
    np.save(file, VALUES)
  for path in (folder, folder / "encoder.prompt.prompt.prompt"):
    assert restore.holds_prompt(path)
    prompt = restore.open_prompt(path)
    assert prompt.format == "npy"
    np.testing.assert_array_equal(prompt.values, VALUES)


@pytest.mark.parametrize(
  "array",
  [
    VALUES.astype(np.float64),
    VALUES.astype(np.float16),
    VALUES.astype("bfloat16"),  # which NumPy writes as two opaque bytes
    VALUES.astype(">f4"),
    np.asfortranarray(VALUES),
  ],
  ids=["float64", "float16", "bfloat16", "big endian", "Fortran order"],
)
def test_read_as_float32(tmp_path, array):
  np.save(tmp_path / "p.npy", array)
  values = restore.open_prompt(tmp_path / "p.npy").values
  assert values.dtype == np.float32
  np.testing.assert_array_equal(values, array.astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_format_versions(tmp_path, version):
  with open(tmp_path / "p.npy", "wb") as file:
    np.lib.format.write_array(file, VALUES, version)
  prompt = restore.open_prompt(tmp_path / "p.npy")
  np.testing.assert_array_equal(prompt.values, VALUES)


class Bomb:
  """An object whose unpickling would be noticed."""

  def __reduce__(self):
    return os.mkdir, ("unpickled",)


def test_a_pickle_is_never_loaded(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  np.save(tmp_path / "p.npy", np.asarray([[Bomb()]], object), allow_pickle=True)
  with pytest.raises(CheckpointError, match="a pickle and is never loaded"):
    restore.open_prompt("p.npy")
  assert os.listdir(tmp_path) == ["p.npy"]


@pytest.mark.parametrize(
  ("array", "found"),
  [
    (np.ones(5, np.float32), r"float32\[5\]"),
    (np.ones((1, 2, 3), np.float32), r"float32\[1, 2, 3\]"),
    (np.ones((0, 4), np.float32), r"float32\[0, 4\]"),
    (np.ones((5, 4), np.int32), r"int32\[5, 4\]"),
    (np.ones((5, 4), np.uint16), "dtype uint16"),
    (np.ones((5, 4), np.complex64), "dtype complex64"),
    (np.ones((5, 4), [("a", "f4"), ("b", "f4")]), "dtype"),
  ],
)
def test_what_is_no_prompt(tmp_path, array, found):
  np.save(tmp_path / "p.npy", array)
  with pytest.raises(CheckpointError, match=found):
    restore.open_prompt(tmp_path / "p.npy")
  with pytest.raises(CheckpointError):
    prompts.write_npy(tmp_path / "q.npy", array)


def npy_bytes():
  stream = io.BytesIO()
  np.save(stream, VALUES)
  return stream.getvalue()


@pytest.mark.parametrize(
  "contents",
  [
    b"",
    b"\x93NUMPY",
    npy_bytes()[:-1],
    npy_bytes() + b"\0",
    npy_bytes().replace(b"(5, 8)", b"(5, 9)"),
    npy_bytes().replace(b"(5, 8), }" + b" " * 18, b"(5, %d), }" % 10**18),
    npy_bytes().replace(b"(5, 8), }", b"(5, -8),}"),
    npy_bytes().replace(b"'<f4'", b"'<f3'"),
    npy_bytes().replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"),
    b"PK\x03\x04 a zip, as .npz is",
  ],
)
def test_damaged_files(tmp_path, contents):
  (tmp_path / "p.npy").write_bytes(contents)
  with pytest.raises(CheckpointError):
    restore.open_prompt(tmp_path / "p.npy")


UNUSABLE = {
  "NaN": (VALUES * np.nan, r"finite numbers .* found nan at \[0, 0\]"),
  "infinite": (VALUES * np.inf, "finite numbers"),
  "one of many": (
    np.where(np.arange(40).reshape(5, 8) == 13, np.nan, VALUES),
    r"found nan at \[1, 5\]",
  ),
  "more than float32 holds": (VALUES.astype("f8") * 1e300, "float32 can hold"),
  "no vectors": (VALUES[:0], r"P and H at least 1; found float32\[0, 8\]"),
  "no width": (VALUES[:, :0], r"at least 1; found float32\[5, 0\]"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_prompts_that_cannot_be_used(tmp_path, case):
  """They were used, and gave NaN or nothing but the model's own answers."""
  values, message = UNUSABLE[case]
  np.save(tmp_path / "p.npy", values)
  with pytest.raises(CheckpointError, match=message):
    load.load(tmp_path / "p.npy")
  with pytest.raises(CheckpointError):
    prompts.write_npy(tmp_path / "q.npy", values)
  assert not (tmp_path / "q.npy").exists()
  with pytest.raises(ValueError, match="A prompt "):
    api.from_vectors(values)


@pytest.mark.parametrize("dtype", ["f8", "f2", ml_dtypes.bfloat16])
def test_other_floating_numbers_that_fit(tmp_path, dtype):
  np.save(tmp_path / "p.npy", VALUES.astype(dtype))
  tuned = load.load(tmp_path / "p.npy")
  expected = VALUES.astype(dtype).astype(np.float32)
  np.testing.assert_array_equal(tuned.runs.delta.virtual[0], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_adapters_that_cannot_be_used(tmp_path, value):
  peft.write_vectors(tmp_path / "a", VALUES)
  file = tmp_path / "a" / peft.WEIGHTS
  array = load_file(file)["prompt_embeddings"].astype("f8")
  array[3, 2] = value
  save_file({"prompt_embeddings": array}, file)
  with pytest.raises(CheckpointError, match=r"finite numbers .* at \[3, 2\]"):
    load.load(tmp_path / "a")


@given(position=st.integers(0, 8 * len(npy_bytes()) - 1))
def test_flipped_bits(tmp_path_factory, position):
  contents = bytearray(npy_bytes())
  contents[position // 8] ^= 1 << position % 8
  path = tmp_path_factory.mktemp("p") / "p.npy"
  path.write_bytes(contents)
  try:
    values = restore.open_prompt(path).values
  except CheckpointError:
    return
  assert values.ndim == 2
  assert values.size <= len(contents)


def test_which_of_several(tmp_path):
  prompts.write_npy(tmp_path / "a.npy", VALUES)
  prompts.write_npy(tmp_path / "b.npy", VALUES)
  with pytest.raises(CheckpointError, match="Name one of the files"):
    restore.open_prompt(tmp_path)


def test_from_a_checkpoint_of_a_prompt_tuned_model(flat, tools, tmp_path):
  path = tools.write(tmp_path, "t5x", {**flat, prompts.PARAMETER: VALUES})
  prompt = restore.open_prompt(path)
  assert prompt.format == "t5x"
  np.testing.assert_array_equal(prompt.values, VALUES)


def test_a_checkpoint_without_a_prompt(checkpoints):
  with pytest.raises(
    CheckpointError, match=r"a prompt \[P, H\]; found nothing"
  ):
    restore.open_prompt(checkpoints["t5x"])


def test_sizes_are_insisted_on(tmp_path):
  prompts.write_npy(tmp_path / "p.npy", VALUES)
  prompt = restore.open_prompt(tmp_path / "p.npy")
  assert prompts.insist(prompt, 5, 8) is prompt
  assert prompts.insist(prompt, width=8) is prompt
  with pytest.raises(CheckpointError, match=r"\[5, 512\]; found \[5, 8\]"):
    prompts.insist(prompt, width=512)
  with pytest.raises(CheckpointError, match=r"\[100, 8\]; found \[5, 8\]"):
    prompts.insist(prompt, length=100)


def test_writing_is_atomic(tmp_path):
  path = tmp_path / "p.npy"
  prompts.write_npy(path, VALUES)
  with pytest.raises(CheckpointError, match="something already there"):
    prompts.write_npy(path, VALUES + 1)
  np.testing.assert_array_equal(np.load(path), VALUES)
  prompts.write_npy(path, VALUES + 1, overwrite=True)
  np.testing.assert_array_equal(np.load(path), VALUES + 1)
  assert os.listdir(tmp_path) == ["p.npy"]


def test_restoring_the_backbone_beside_a_prompt(flat, tools, tmp_path):
  path = tools.write(tmp_path, "t5x", {**flat, prompts.PARAMETER: VALUES})
  with pytest.raises(CheckpointError, match="prompt: expected nothing"):
    restore.restore(path, tools.structs())
  params = restore.restore(path, tools.structs(), ignore=["encoder/prompt/.*"])
  assert tree.flatten(params).keys() == flat.keys()
