"""Fixed shapes: steps, first steps, peak memory, greedy decoding, saving.

All sides start from the same weights and prompt and read the same ids; the
losses that they report must agree, or nothing is.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import turns
from benchmarks.turns import WARM, Worker

PROJECT, PEFT, BARE = "project", "peft_torch", "bare_jax"
SIDES = (PROJECT, PEFT, BARE)
ROWS, TARGETS, VOCABULARY = 8, 8, 32_000


def measure_steps(
  model: pathlib.Path,
  inputs: Sequence[int],
  rounds: int,
  scratch: pathlib.Path,
  starts: Sequence[int],
) -> list[dict[str, Any]]:
  """Time a step of every side at several input lengths.

  Args:
    model: made by `making.write`.
    inputs: text tokens of a row.
    rounds: turns of each side, two timed steps a turn.
    scratch: an empty folder, for compiled programs.
    starts: those of `inputs` for which to time first steps of fresh processes
      too: `rounds` without and as many with what an earlier one compiled.

  Returns:
    One row per length.
  """
  rows = []
  for length in inputs:
    asked = {
      "do": "step",
      "shape": [ROWS, length, TARGETS],
      "vocab_size": VOCABULARY,
    }
    compiled = scratch / f"compiled_{length}"
    found: dict[str, dict[str, Any]] = {side: {"peak_gb": 0} for side in SIDES}
    if length in starts:
      found = _starts(model, asked, compiled, rounds)
    workers = {side: Worker(side, model, compiled) for side in SIDES}
    requests = [{**asked, "times": 1}]  # compiles
    requests += [{**asked, "times": WARM + 2}] * rounds
    answers = turns.take_turns(workers, dict.fromkeys(SIDES, requests))
    for worker in workers.values():
      worker.__exit__()
    losses = {
      side: [loss for answer in answers[side] for loss in answer["results"]]
      for side in SIDES
    }
    insist_same(losses)
    for side in SIDES:
      timed = [s for turn in answers[side][1:] for s in turn["seconds"][WARM:]]
      peak = round(answers[side][-1]["peak_bytes"] / 1e9, 2)
      found[side] |= {
        "step_s": turns.spread(timed),
        "peak_gb": max(peak, found[side]["peak_gb"]),
      }
    rows.append({"inputs": length, "losses": losses[PROJECT], **found})
  return rows


def _starts(
  model: pathlib.Path, asked: dict[str, Any], compiled: pathlib.Path, count: int
) -> dict[str, dict[str, Any]]:
  """Time fresh processes until their first step is done.

  Returns:
    Side -> spread of seconds, `count` times with nothing compiled and `count`
    times with what the last of those left; the most memory that one had.
  """
  kinds: dict[str, list[pathlib.Path]] = {
    "cold_start_s": [compiled / str(turn) for turn in range(count)],
    "warm_start_s": [compiled / str(count - 1)] * count,
  }
  found: dict[str, dict[str, Any]] = {side: {"peak_gb": 0} for side in SIDES}
  for kind, folders in kinds.items():
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for folder in folders:
      for side in SIDES:
        # As in training, which knows its first batch before it reads the model;
        # torch compiles nothing, the straightforward program when it is run.
        ahead = {"first": asked["shape"]} if side == PROJECT else {}
        with Worker(side, model, folder, **ahead) as worker:
          answer = worker.ask(**asked, times=1)
        seconds[side].append(worker.start_s + answer["seconds"][0])
        peak = round(answer["peak_bytes"] / 1e9, 2)
        found[side]["peak_gb"] = max(peak, found[side]["peak_gb"])
    for side in SIDES:
      found[side][kind] = turns.spread(seconds[side])
  return found


def insist_same(losses: dict[str, list[float]], rtol: float = 1e-4) -> None:
  """Insist that all sides did the same work.

  Args:
    losses: side -> loss before every step.
    rtol: what rounding may grow to, of the project's losses.

  Raises:
    RuntimeError: they differ by more.
  """
  for side, values in losses.items():
    if not np.allclose(values, losses[PROJECT], rtol=rtol):
      raise RuntimeError(
        f"{side} has losses {values}, the project {losses[PROJECT]}: they do "
        "not do the same work."
      )


def measure_decoding(
  model: pathlib.Path, inputs: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
  """Time greedy decoding of eight tokens for 32 rows.

  Raises:
    RuntimeError: the sides decode different ids.
  """
  rows = []
  for length in inputs:
    sides = (PROJECT, PEFT)
    workers = {side: Worker(side, model) for side in sides}
    asked = {"do": "decode", "length": TARGETS, "shape": [32, length, TARGETS]}
    request = {**asked, "vocab_size": VOCABULARY, "times": WARM + 1}
    answers = turns.take_turns(
      workers, dict.fromkeys(sides, [request] * rounds)
    )
    for worker in workers.values():
      worker.__exit__()
    ours, theirs = (np.array(answers[side][-1]["results"][0]) for side in sides)
    ours, theirs = (
      np.pad(ids, ((0, 0), (0, TARGETS - ids.shape[1])))
      for ids in (ours, theirs)
    )
    unlike = int((ours != theirs).any(axis=1).sum())
    if unlike:
      raise RuntimeError(
        f"The project and PEFT decode {unlike} of {len(ours)} rows of {length} "
        "tokens differently: they do not do the same work."
      )
    row: dict[str, Any] = {"inputs": length}
    for side in sides:
      timed = [s for turn in answers[side] for s in turn["seconds"][WARM:]]
      row[side] = {"seconds": turns.spread(timed)}
    rows.append(row)
  return rows


def measure_saving(
  model: pathlib.Path, scratch: pathlib.Path
) -> dict[str, dict[str, Any]]:
  """Time what each side writes to continue or share a prompt, and weigh it."""
  found = {}
  for side in (PROJECT, PEFT):
    folder = scratch / f"saved_{side}"
    with Worker(side, model) as worker:
      shape = {"shape": [2, 16, 4], "vocab_size": VOCABULARY}
      worker.ask(do="step", **shape, times=1)
      seconds = []
      for number in range(5):
        target = f"{folder}_{number}"
        answer = worker.ask(do="save", folder=target, **shape, times=1)
        seconds += answer["seconds"]
    written = pathlib.Path(target).rglob("*")
    size = sum(file.stat().st_size for file in written if file.is_file())
    found[side] = {"bytes": size, "seconds": turns.spread(seconds)}
  weights = (model / "model").rglob("*.safetensors")
  found["whole model"] = {"bytes": sum(f.stat().st_size for f in weights)}
  return found
