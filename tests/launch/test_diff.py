"""`prompt-tuning diff`."""

import numpy as np
import pytest

from prompt_tuning.checkpoints import peft, prompts, restore, t5x_writer
from prompt_tuning.launch import diff

A = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3),
  "b": np.ones(4, np.float32),
  "c": np.zeros((2, 2), np.float32),
}


@pytest.fixture
def run(tmp_path, capsys):
  """Write two checkpoints, compare them, return (status, lines)."""

  def compare(a, b):
    for name, arrays in (("a", a), ("b", b)):
      t5x_writer.write_t5x(
        tmp_path / name, restore.leaves_of(arrays), overwrite=True
      )
    status = diff.main([str(tmp_path / "a"), str(tmp_path / "b")])
    return status, capsys.readouterr().out.splitlines()

  return compare


def test_equal(run):
  assert run(A, A) == (0, ["3 equal, 0 different"])


def test_every_kind_of_difference(run):
  changed = A["a"].copy()
  changed[1] += (0.5, 0, -2)
  b = {"a": changed, "b": np.ones(5, np.float32), "d": A["c"]}
  assert run(A, b) == (
    1,
    [
      "! a: 2 of 6 values differ, by at most 2",
      "! b: float32[4] against float32[5]",
      "- c float32[2, 2]",
      "+ d float32[2, 2]",
      "0 equal, 4 different",
    ],
  )


def test_dtypes(run):
  b = {
    **A,
    "a": A["a"].astype("bfloat16"),
    "b": (A["b"] / 3).astype("bfloat16"),
  }
  status, lines = run(A, b)
  assert status == 1
  assert (
    lines[0] == "! a: float32 against bfloat16, equal values, different bits"
  )
  assert lines[1].startswith(
    "! b: float32 against bfloat16, 4 of 4 values differ, by"
  )


def test_values_that_are_no_numbers(run):
  a = {"x": np.asarray([np.nan, np.nan, np.inf, 1], np.float32)}
  assert run(a, a)[0] == 0
  b = {"x": np.asarray([np.nan, 1, np.inf, 1], np.float32)}
  assert run(a, b) == (
    1,
    ["! x: 1 of 4 values differ, by at most nan", "0 equal, 1 different"],
  )
  c = {"x": np.asarray([np.nan, np.nan, -np.inf, 1], np.float32)}
  assert run(a, c)[1][0] == "! x: 1 of 4 values differ, by at most inf"


def test_signed_zeros_differ_in_bits(run):
  status, lines = run(A, {**A, "c": -A["c"]})
  assert status == 1
  assert lines[0] == "! c: equal values, different bits"


def test_prompts_of_different_formats(tmp_path, capsys):
  prompts.write_npy(tmp_path / "p.npy", A["a"])
  peft.write_vectors(tmp_path / "adapter", A["a"])
  paths = [str(tmp_path / name) for name in ("p.npy", "adapter")]
  assert diff.main(paths) == 0
  assert capsys.readouterr().out == "1 equal, 0 different\n"


def test_errors(tmp_path, capsys):
  prompts.write_npy(tmp_path / "p.npy", A["a"])
  paths = [str(tmp_path / "p.npy"), str(tmp_path / "nothing")]
  assert diff.main(paths) == 2
  assert "found nothing" in capsys.readouterr().err


def test_all_damage_of_one_checkpoint_is_told(run, tmp_path, capsys):
  run(A, A)
  for name in ("a", "c"):
    (chunk,) = (tmp_path / "b" / f"target.{name}").glob("0.0")
    chunk.write_bytes(chunk.read_bytes()[:-3])
  assert diff.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
  message = capsys.readouterr().err
  assert message.startswith(f"error: {tmp_path / 'b'}: 2 mismatches")


def test_the_damage_of_both_is_told(run, tmp_path, capsys):
  run(A, A)
  for side, name in (("a", "a"), ("b", "c")):
    (tmp_path / side / f"target.{name}" / "0.0").unlink()
  assert diff.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
  message = capsys.readouterr().err
  for side, name in (("a", "a"), ("b", "c")):
    assert f"{tmp_path / side}: 1 mismatch.\n  {name}: " in message
