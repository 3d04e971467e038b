"""`prompt-tuning inspect PATH`: what a checkpoint or a prompt file holds."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import restore, sizes
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.checkpoints.source import Checkpoint, Leaf


def main(argv: Sequence[str]) -> int:
  """Show a checkpoint's tree, dtypes, counts and step; arrays stay unread.

  Args:
    argv: the words after `prompt-tuning inspect`.

  Returns:
    0, or 2 where the path cannot be read.
  """
  parser = argparse.ArgumentParser(
    prog="prompt-tuning inspect", description=__doc__
  )
  parser.add_argument("path", help="checkpoint, adapter or NumPy prompt")
  parser.add_argument("--json", action="store_true", help="for programs")
  args = parser.parse_args(argv)
  try:
    if restore.holds_prompt(args.path):
      report = _prompt_report(args.path)
      lines = _prompt_lines(report)
    else:
      report = checkpoint_report(restore.open_checkpoint(args.path))
      lines = _checkpoint_lines(report)
  except CheckpointError as error:
    print(error, file=sys.stderr)
    return 2
  print(json.dumps(report, indent=2) if args.json else "\n".join(lines))
  return 0


def checkpoint_report(checkpoint: Checkpoint) -> dict[str, Any]:
  """Describe a checkpoint in JSON's types.

  Args:
    checkpoint: opened.

  Returns:
    path, format, step, size (a published name or None), config (None where the
    parameters are not a T5's), params and state (path -> shape and dtype),
    totals of both, notes.
  """
  notes = list(checkpoint.notes)
  size, config = None, None
  try:
    inferred = sizes.infer_config(checkpoint)
    size, config = sizes.size_name(inferred), sizes.described(inferred)
  except CheckpointError as error:
    notes.append(f"not the parameters of a T5: {error}")
  state: Mapping[str, Leaf] = {}
  try:
    state = checkpoint.open_state()
  except CheckpointError as error:
    notes.append(f"the optimizer state cannot be read: {error}")
  return {
    "path": checkpoint.path,
    "format": checkpoint.format,
    "step": checkpoint.step,
    "size": size,
    "config": config,
    "params": _listed(checkpoint.params),
    "totals": _totals(checkpoint.params),
    "state": _listed(state),
    "state_totals": _totals(state),
    "notes": notes,
  }


def _listed(leaves: Mapping[str, Leaf]) -> dict[str, Any]:
  return {
    path: {"shape": list(leaf.shape), "dtype": leaf.dtype.name}
    for path, leaf in leaves.items()
  }


def _totals(leaves: Mapping[str, Leaf]) -> dict[str, int]:
  return {
    "arrays": len(leaves),
    "values": sum(leaf.size for leaf in leaves.values()),
    "bytes": sum(leaf.nbytes for leaf in leaves.values()),
  }


def _checkpoint_lines(report: Mapping[str, Any]) -> list[str]:
  step = "no step" if report["step"] is None else f"step {report['step']}"
  lines = [f"{report['path']}: {report['format']}, {step}"]
  if report["config"] is not None:
    fields = ", ".join(f"{k}={v}" for k, v in report["config"].items())
    lines.append(f"size: {report['size'] or 'no published one'} ({fields})")
  width = max(map(len, report["params"]), default=0)
  lines += [
    f"  {path:<{width}}  {leaf['dtype']}{leaf['shape']}"
    for path, leaf in report["params"].items()
  ]
  lines.append(f"parameters: {_total_line(report['totals'])}")
  lines.append(f"optimizer state: {_total_line(report['state_totals'])}")
  return lines + [f"note: {note}" for note in report["notes"]]


def _total_line(totals: Mapping[str, int]) -> str:
  return (
    f"{totals['values']:,} values in {totals['arrays']:,} arrays, "
    f"{totals['bytes'] / 2**20:,.1f} MiB"
  )


def _prompt_report(path: str) -> dict[str, Any]:
  prompt = restore.open_prompt(path)
  norms = np.linalg.norm(prompt.values, axis=1)
  return {
    "path": path,
    "format": prompt.format,
    "length": prompt.values.shape[0],
    "width": prompt.values.shape[1],
    "dtype": prompt.values.dtype.name,
    "mean_norm": float(norms.mean()),
    "notes": list(prompt.notes),
  }


def _prompt_lines(report: Mapping[str, Any]) -> list[str]:
  shape = [report["length"], report["width"]]
  return [
    f"{report['path']}: {report['format']}, a prompt",
    f"  {report['dtype']}{shape}, mean norm {report['mean_norm']:.4g}",
    *(f"note: {note}" for note in report["notes"]),
  ]
