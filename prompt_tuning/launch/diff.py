"""`prompt-tuning diff A B`: compare two checkpoints, or prompts, by leaf."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from prompt_tuning.checkpoints import restore
from prompt_tuning.checkpoints.errors import CheckpointError, DamagedLeafError
from prompt_tuning.checkpoints.source import ArrayLeaf, Leaf, all_damage


def main(argv: Sequence[str]) -> int:
  """Compare the parameters of two checkpoints, whatever their formats.

  Args:
    argv: the words after `prompt-tuning diff`.

  Returns:
    0 where they are equal bit for bit, 1 where they differ, 2 where one of
    them cannot be read.
  """
  parser = argparse.ArgumentParser(
    prog="prompt-tuning diff", description=__doc__
  )
  parser.add_argument("a", help="checkpoint, adapter or NumPy prompt")
  parser.add_argument("b", help="what to compare it with")
  args = parser.parse_args(argv)
  try:
    a, b = _leaves(args.a), _leaves(args.b)
    lines = list(differences(a, b))
  except DamagedLeafError:  # a leaf's damage seldom is alone
    for path, leaves in ((args.a, a), (args.b, b)):
      if damage := all_damage(leaves):
        print(CheckpointError(path, damage), file=sys.stderr)
    return 2
  except CheckpointError as error:
    print(error, file=sys.stderr)
    return 2
  for line in lines:
    print(line)
  equal = len(a.keys() | b.keys()) - len(lines)
  print(f"{equal} equal, {len(lines)} different")
  return int(bool(lines))


def _leaves(path: str) -> Mapping[str, Leaf]:
  """Open the parameters of a checkpoint, or the one of a prompt file."""
  if not restore.holds_prompt(path):
    return restore.open_checkpoint(path).params
  values = restore.open_prompt(path).values
  return {"prompt": ArrayLeaf("prompt", values.shape, values.dtype, values)}


def differences(a: Mapping[str, Leaf], b: Mapping[str, Leaf]) -> Iterator[str]:
  """Compare two sets of leaves, reading one pair at a time.

  Args:
    a: path -> leaf.
    b: path -> leaf.

  Yields:
    One line per leaf that differs, by path.

  Raises:
    CheckpointError: damaged bytes.
  """
  for path in sorted(a.keys() | b.keys()):
    if path not in b:
      yield f"- {path} {a[path]}"
    elif path not in a:
      yield f"+ {path} {b[path]}"
    elif a[path].shape != b[path].shape:
      yield f"! {path}: {a[path]} against {b[path]}"
    elif difference := _values(a[path], b[path]):
      yield f"! {path}: {difference}"


def _values(a: Leaf, b: Leaf) -> str:
  """Say how two leaves of one shape differ; empty where they do not."""
  x, y = a.read(), b.read()
  if x.dtype == y.dtype and x.tobytes() == y.tobytes():
    return ""
  types = "" if x.dtype == y.dtype else f"{x.dtype} against {y.dtype}, "
  wide = np.promote_types(np.float32, np.result_type(x.dtype, y.dtype))
  x, y = x.astype(wide), y.astype(wide)
  # A NaN against a number differs; against a NaN of other bits, only in bits.
  differing = (x != y) & ~(np.isnan(x) & np.isnan(y))
  if not differing.any():
    return f"{types}equal in value, not in bits"
  with np.errstate(over="ignore"):
    largest = np.max(np.abs(x[differing] - y[differing]))
  return (
    f"{types}{np.count_nonzero(differing):,} of {x.size:,} values, "
    f"by at most {largest:.6g}"
  )
