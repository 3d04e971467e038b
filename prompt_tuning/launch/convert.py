"""`prompt-tuning convert SRC DST --to FORMAT`: models and prompts."""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.checkpoints import (
  hf,
  peft,
  prompts,
  restore,
  sizes,
  strict,
  t5x_writer,
)
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  DamagedLeafError,
)
from prompt_tuning.checkpoints.source import Checkpoint, Leaf, all_damage
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config

MODELS = ("t5x", "hf")
PROMPTS = ("npy", "peft")
DTYPES = {dtype.name: dtype for dtype in t5x_writer.SAVE_DTYPES}
_STEP = re.compile(r"checkpoint_(\d+)")


def main(argv: Sequence[str]) -> int:
  """Write a checkpoint or a prompt in another format.

  Args:
    argv: the words after `prompt-tuning convert`.

  Returns:
    0, or 2 where the source is not what it should be, or the destination is
    there already; then nothing has been written.
  """
  args = _parser().parse_args(argv)
  try:
    model = t5_config.get(args.config) if args.config else None
    if args.to in MODELS:
      notes = _convert_model(args, model)
    else:
      notes = _convert_prompt(args, model)
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2
  for note in notes:
    print(f"note: {note}")
  print(f"{args.dst}: written as {args.to}")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning convert", description=__doc__
  )
  parser.add_argument("src", help="of any format; it is detected")
  parser.add_argument(
    "dst",
    help="the folder, or for npy the file, to make; T5X wants its folders "
    "called checkpoint_<step>",
  )
  parser.add_argument("--to", required=True, choices=(*MODELS, *PROMPTS))
  parser.add_argument(
    "--dtype", choices=DTYPES, help="of the parameters; default: as they are"
  )
  parser.add_argument(
    "--config",
    metavar="SIZE",
    help="insist on this size, such as t5_1_1_small; default: from the shapes",
  )
  parser.add_argument(
    "--ignore",
    action="append",
    default=[],
    type=_pattern,
    metavar="PATTERN",
    help="leave parameters out whose whole path matches (may be repeated)",
  )
  parser.add_argument("--step", type=_step, help="training step, for t5x")
  parser.add_argument("--base-model", help="name of the backbone, for peft")
  parser.add_argument(
    "--overwrite",
    action="store_true",
    help="replace what is there, if it is a checkpoint or a prompt",
  )
  return parser


def _step(text: str) -> int:
  """Read a training step; T5X keeps it as an int32."""
  if not text.isdecimal() or int(text) >= 1 << 31:
    raise argparse.ArgumentTypeError(
      f"a step is a number from 0 to {(1 << 31) - 1}; got {text!r}"
    )
  return int(text)


def _pattern(text: str) -> str:
  """Check that a pattern is a regular expression."""
  try:
    re.compile(text)
  except re.error as error:
    raise argparse.ArgumentTypeError(
      f"{text!r} is no regular expression: {error}"
    ) from error
  return text


def _convert_model(
  args: argparse.Namespace, model: T5Config | None
) -> tuple[str, ...]:
  """Convert a backbone; returns what the user should know."""
  source = restore.open_checkpoint(args.src, whole=False)
  params, config = _whole_model(source, model, args.ignore)
  try:
    return _write_model(args, source, params, config)
  except DamagedLeafError as error:  # a leaf's damage seldom is alone
    everything = dict(params)
    if args.to == "t5x":
      state = source.open_state().items()
      everything |= {f"state/{name}": leaf for name, leaf in state}
    raise CheckpointError(args.src, all_damage(everything)) from error


def _write_model(
  args: argparse.Namespace,
  source: Checkpoint,
  params: Mapping[str, Leaf],
  config: T5Config,
) -> tuple[str, ...]:
  """Write a backbone; returns what the user should know."""
  dtype = DTYPES[args.dtype] if args.dtype else None
  overwrite = args.overwrite and restore.is_ours
  notes = list(source.notes)
  if args.to == "hf":
    unsaid = args.config is None and source.config is None
    if unsaid and not sizes.size_name(config):
      notes.append(
        "no published size: relative_attention_max_distance is "
        f"{config.relpos_max_distance}, T5's usual one; shapes do not tell it"
      )
    hf.write_hf(args.dst, params, config, dtype=dtype, overwrite=overwrite)
    return tuple(notes)
  named = _STEP.fullmatch(os.path.basename(os.path.normpath(args.dst)))
  step = next(
    s
    for s in (args.step, source.step, int(named[1]) if named else None, 0)
    if s is not None
  )
  if named is None or int(named[1]) != step:
    notes.append(f"T5X looks for step {step} under the name checkpoint_{step}")
  t5x_writer.write_t5x(
    args.dst,
    params,
    step=step,
    dtype=dtype,
    state=source.open_state(),
    overwrite=overwrite,
  )
  return tuple(notes)


def _whole_model(
  source: Checkpoint, model: T5Config | None, ignore: Sequence[str]
) -> tuple[Mapping[str, Leaf], T5Config]:
  """Insist that a checkpoint holds all of one T5, and nothing else."""
  config = model or sizes.infer_config(source)
  target = tree.flatten(network.abstract_params(config))
  hint = sizes.hint(source, target)
  params = strict.match(
    source.path, source.params, target, ignore, hint, source.broken
  )
  return params, config


def _convert_prompt(
  args: argparse.Namespace, model: T5Config | None
) -> tuple[str, ...]:
  """Convert a prompt; returns what the user should know."""
  if args.dtype not in (None, "float32"):
    raise ValueError(f"Prompts are saved as float32; --dtype {args.dtype}.")
  prompt = restore.open_prompt(args.src)
  prompts.insist(prompt, width=model.emb_dim if model else None)
  values = np.asarray(prompt.values)
  overwrite = args.overwrite and restore.is_ours
  if args.to == "npy":
    prompts.write_npy(args.dst, values, overwrite=overwrite)
  else:
    peft.write_vectors(
      args.dst,
      values,
      model=model,
      base_model=args.base_model,
      overwrite=overwrite,
    )
  return prompt.notes
