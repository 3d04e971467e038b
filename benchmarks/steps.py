"""Fixed shapes: steps, first steps, peak memory, greedy decoding, saving.

All sides start from the same weights and prompt and read the same ids; the
losses that they report must agree, or nothing is.
"""

import itertools
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import turns
from benchmarks.sides import work
from benchmarks.turns import WARM, Worker

PROJECT, PEFT, BARE = "project", "peft_torch", "bare_jax"
SIDES = (PROJECT, PEFT, BARE)
ROWS, TARGETS, VOCABULARY = 8, 8, 32_000
CHECKED = 3  # losses of a method, other than prompt tuning, that must agree
TIMED = 4  # of a turn, after `turns.WARM`
MANY = 256  # tokens; below, proportionally more turns


# Side -> its turns -> seconds of each repetition in one.
Times = dict[str, list[list[float]]]


def measure_steps(
  model: pathlib.Path,
  inputs: Sequence[int],
  rounds: int,
  scratch: pathlib.Path,
  starts: Sequence[int] = (),
  sides: Sequence[str] = SIDES,
  method: str = work.PROMPT,
) -> list[dict[str, Any]]:
  """Time a step of every side at several input lengths.

  Args:
    model: made by `making.write`.
    inputs: text tokens of a row.
    rounds: turns of each side, `TIMED` steps a turn; more turns for fewer than
      `MANY` tokens.
    scratch: an empty folder, for compiled programs.
    starts: those of `inputs` for which to time first steps of fresh processes
      too: `rounds` without and as many with what an earlier one compiled.
    sides: of `SIDES`; for first steps, all.
    method: that they train, see `sides.methods`; bare JAX has prompts only.

  Returns:
    One row per length: spreads of seconds and the peak memory of every side;
    `ratios`: of what -> other side -> spread over turns, see `compare`.
  """
  rows = []
  for length in inputs:
    asked = {
      "do": "step",
      "shape": [ROWS, length, TARGETS],
      "vocab_size": VOCABULARY,
    }
    compiled = scratch / f"compiled_{length}"
    times: dict[str, Times] = {}
    peaks = dict.fromkeys(sides, 0.0)
    if length in starts:
      times = _starts(model, asked, compiled, rounds, peaks)
    # The shorter a step, the more of its turns neighbours disturb.
    count = rounds * max(1, MANY // length)
    times["step_s"], losses = _steps(
      model, asked, compiled, count, peaks, method
    )
    row: dict[str, Any] = {"inputs": length, "losses": losses}
    for side in sides:
      row[side] = {"peak_gb": peaks[side]}
      for kind, found in times.items():
        row[side][kind] = turns.spread(itertools.chain(*found[side]))
    row["ratios"] = {kind: compare(found) for kind, found in times.items()}
    rows.append(row)
  return rows


def _steps(
  model: pathlib.Path,
  asked: dict[str, Any],
  compiled: pathlib.Path,
  rounds: int,
  peaks: dict[str, float],
  method: str,
) -> tuple[Times, list[float]]:
  """Time steps of all sides of `peaks`, GB that their processes had.

  Returns:
    Seconds, and the project's loss before every step.

  Raises:
    RuntimeError: the sides' losses differ.
  """
  sides = list(peaks)
  options = {} if method == work.PROMPT else {"method": method}
  workers = {side: Worker(side, model, compiled, **options) for side in sides}
  requests = [{**asked, "times": 1}]  # compiles
  requests += [{**asked, "times": WARM + TIMED}] * rounds
  answers = turns.take_turns(workers, dict.fromkeys(sides, requests))
  for side, worker in workers.items():
    worker.__exit__()
    _raise_peak(peaks, side, answers[side][-1])
  losses = {
    side: [loss for answer in answers[side] for loss in answer["results"]]
    for side in sides
  }
  # The gradients of some methods are so steep that rounding grows step by step.
  checked = None if method == work.PROMPT else CHECKED
  insist_same({side: found[:checked] for side, found in losses.items()})
  return {side: _timed(answers[side][1:]) for side in sides}, losses[PROJECT]


def _starts(
  model: pathlib.Path,
  asked: dict[str, Any],
  compiled: pathlib.Path,
  count: int,
  peaks: dict[str, float],
) -> dict[str, Times]:
  """Time fresh processes until their first step is done; raise `peaks`.

  Returns:
    Seconds, `count` times with nothing compiled and `count` times with what the
    last of those left.
  """
  kinds: dict[str, list[pathlib.Path]] = {
    "cold_start_s": [compiled / str(turn) for turn in range(count)],
    "warm_start_s": [compiled / str(count - 1)] * count,
  }
  times: dict[str, Times] = {}
  for kind, folders in kinds.items():
    times[kind] = {side: [] for side in SIDES}
    for folder in folders:
      for side in SIDES:
        # As in training, which knows its first batch before it reads the model;
        # torch compiles nothing, the straightforward program when it is run.
        ahead = {"first": asked["shape"]} if side == PROJECT else {}
        with Worker(side, model, folder, **ahead) as worker:
          answer = worker.ask(**asked, times=1)
        times[kind][side].append([worker.start_s + answer["seconds"][0]])
        _raise_peak(peaks, side, answer)
  return times


def _raise_peak(
  peaks: dict[str, float], side: str, answer: dict[str, Any]
) -> None:
  peaks[side] = max(peaks[side], round(answer["peak_bytes"] / 1e9, 2))


def _timed(answers: Sequence[dict[str, Any]]) -> list[list[float]]:
  """Take what counts of every turn, see `turns.WARM`."""
  return [answer["seconds"][WARM:] for answer in answers]


def compare(times: Times) -> dict[str, dict[str, float]]:
  """Divide the project's times by the others', turn by turn.

  Args:
    times: of the project and other sides, as many turns of each.

  Returns:
    Other side -> spread over turns of the ratio of the turns' medians. What a
    neighbour on the machine does to both in a turn cancels out.
  """
  medians = {
    side: [statistics.median(turn) for turn in found]
    for side, found in times.items()
  }
  ours = medians.pop(PROJECT)
  return {
    side: turns.spread(a / b for a, b in zip(ours, theirs, strict=True))
    for side, theirs in medians.items()
  }


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

  Returns:
    One row per input length: seconds of each side, `ratios` as `compare` gives.

  Raises:
    RuntimeError: the sides decode different ids.
  """
  rows = []
  for length in inputs:
    sides = (PROJECT, PEFT)
    workers = {side: Worker(side, model) for side in sides}
    asked = {"do": "decode", "length": TARGETS, "shape": [32, length, TARGETS]}
    request = {**asked, "vocab_size": VOCABULARY, "times": WARM + TIMED}
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
    times = {side: _timed(answers[side]) for side in sides}
    row: dict[str, Any] = {"inputs": length, "ratios": compare(times)}
    for side in sides:
      row[side] = {"seconds": turns.spread(itertools.chain(*times[side]))}
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
