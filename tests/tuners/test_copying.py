"""Copying a prompt from memory or from a file nobody trusts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.tuners.copying import FromFile
from prompt_tuning.tuners.initializers import InitializerContext

P, H = 5, 6
VALUES = np.random.default_rng(0).normal(size=(P, H)).astype(np.float32)


def _make(initializer, context=None):
  rng = jax.random.key(0)
  array = initializer(rng, (P, H), jnp.float32, context or InitializerContext())
  assert array.shape == (P, H)
  assert array.dtype == jnp.float32
  return np.asarray(array)


def test_the_context_may_bring_a_reader_of_other_formats():
  context = InitializerContext(load_prompt={"a/bundle": VALUES}.__getitem__)

  np.testing.assert_array_equal(_make(FromFile("a/bundle"), context), VALUES)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_file_round_trip_without_suffix(tmp_path, dtype):
  path = tmp_path / "encoder.prompt.prompt.prompt"
  with path.open("wb") as f:
    np.save(f, VALUES.astype(dtype))

  rows = _make(FromFile(str(path)))

  np.testing.assert_array_equal(rows, VALUES.astype(dtype).astype("f4"))


def test_file_of_bfloat16(tmp_path):
  values = jnp.asarray(VALUES, jnp.bfloat16)
  np.save(tmp_path / "prompt.npy", np.asarray(values))

  rows = _make(FromFile(str(tmp_path / "prompt.npy")))

  np.testing.assert_array_equal(rows, np.asarray(values, np.float32))


class _Bomb:
  def __reduce__(self):
    return (pytest.fail, ("unpickled",))


def test_pickled_file_is_never_executed(tmp_path):
  path = tmp_path / "prompt.npy"
  np.save(path, np.array([_Bomb()], dtype=object), allow_pickle=True)

  with pytest.raises(ValueError, match=r"PROMPT_FILE .* is not a NumPy array"):
    _make(FromFile(str(path)))


def test_archive_cut_file_and_folder_are_named_errors(tmp_path):
  np.savez(tmp_path / "a.npz", VALUES)
  np.save(tmp_path / "b.npy", VALUES)
  (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:200])

  with pytest.raises(ValueError, match="archive of arrays"):
    _make(FromFile(str(tmp_path / "a.npz")))
  with pytest.raises(ValueError, match="is not a NumPy array file"):
    _make(FromFile(str(tmp_path / "b.npy")))
  with pytest.raises(FileNotFoundError, match="PROMPT_FILE"):
    _make(FromFile(str(tmp_path)))


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (np.zeros((5, H + 1), "f4"), r"another width: change PROMPT_FILE"),
    (np.zeros((7, H), "f4"), r"set PROMPT_LENGTH = 7"),
    (np.zeros((5,), "f4"), r"two dimensions \[P, H\]"),
    (np.zeros((5, H), "i4"), "int32 numbers"),
    (np.full((5, H), np.nan, "f4"), "NaN"),
  ],
)
def test_unfitting_arrays(values, message):
  with pytest.raises(ValueError, match=message):
    _make(FromFile("given"), InitializerContext(load_prompt=lambda _: values))
