"""The loop around the step: log, evaluate, keep best and last, stop, survive.

Everything that decides how training goes on is in the bundle: state, position
in the data, best scores so far. A run that was killed, at whatever moment,
continues from its last bundle as if nothing had happened, bit for bit.
"""

import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from tqdm import auto as bars

from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import tree
from prompt_tuning.core.types import Batch, Params
from prompt_tuning.train import state as train_state
from prompt_tuning.train.logs import MetricsLog
from prompt_tuning.train.preemption import Preemption
from prompt_tuning.train.state import TrainState
from prompt_tuning.train.step import Metrics

BUNDLES = "bundles"
BEST = "best"

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
  """What an evaluation found out about one run.

  Attributes:
    score: what selection maximises: the task's metric, or the mean of several.
    metrics: tag (`<task>/<metric>`) -> number.
    losses: `<task>/<T5X's tag>` of the training loss there -> number.
    write: writes the answers to files, given the step; None has none.
  """

  score: float
  metrics: Mapping[str, float]
  losses: Mapping[str, float] = types.MappingProxyType({})
  write: Callable[[int], None] | None = None


# The trainable part of all runs -> one evaluation per run.
Evaluator = Callable[[Params], Sequence[Evaluation]]
StepFn = Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]
# Sums over some steps, how many -> T5X's tags -> [K].
Summarise = Callable[[Mapping[str, np.ndarray], int], Mapping[str, np.ndarray]]


class Batches(Protocol):
  """An endless iterator of host batches whose position can be saved."""

  def __next__(self) -> Mapping[str, np.ndarray]:
    """Return the next batch."""
    ...

  def get_state(self) -> dict[str, Any]:
    """Say where it stands, as JSON values."""
    ...

  def set_state(self, state: dict[str, Any]) -> None:
    """Go on from where `get_state` was called."""
    ...


@dataclasses.dataclass(frozen=True)
class Settings:
  """How long to train, and what to do on the way. Periods are in steps.

  Attributes:
    num_steps: updates in all, resumed ones included.
    start_step: added to step numbers in logs, as T5X counts.
    log_period: steps between lines of the log.
    eval_period: steps between evaluations; 0 evaluates at the end only.
    eval_at_start: whether to evaluate before the first step too.
    save_period: steps between bundles; 0 saves at the end only.
    keep: bundles to keep besides the best.
    patience: evaluations without improvement of any run after which training
      stops; None never stops early.
    min_delta: improvement that counts.
    keep_best: whether to keep a bundle of every run's best evaluation too.
    flops_per_token: floating-point operations that training on one encoder
      token and on one decoder token takes; to log them per second.
    progress_bar: whether to draw one.
    tensorboard: whether to write event files.
  """

  num_steps: int
  start_step: int = 0
  log_period: int = 100
  eval_period: int = 1_000
  eval_at_start: bool = False
  save_period: int = 1_000
  keep: int = 2
  patience: int | None = None
  min_delta: float = 0.0
  keep_best: bool = True
  flops_per_token: tuple[float, float] | None = None
  progress_bar: bool = True
  tensorboard: bool = True

  def __post_init__(self) -> None:
    least = {"num_steps": 1, "log_period": 1, "keep": 1}
    least |= {"eval_period": 0, "save_period": 0}
    for name, bound in least.items():
      if getattr(self, name) < bound:
        value = getattr(self, name)
        raise ValueError(f"{name} must be at least {bound}; got {value}.")


class Result(NamedTuple):
  """How training ended.

  Attributes:
    state: the last one.
    best: per run, {"step", "score", "metrics"} of its best evaluation, or None.
    reason: `finished`, `early stopping` or `preempted`.
    tokens: encoder and decoder tokens trained on, resumed ones included.
  """

  state: TrainState
  best: list[dict[str, Any] | None]
  reason: str
  tokens: tuple[int, int] = (0, 0)


class DivergedError(RuntimeError):
  """The loss of every run is no longer a finite number."""


def train(
  step_fn: StepFn,
  state: TrainState,
  frozen: Params,
  batches: Batches,
  *,
  settings: Settings,
  folder: str | os.PathLike[str],
  manifest: Mapping[str, Any],
  about: Mapping[str, Any] = types.MappingProxyType({}),
  summarise: Summarise,
  place: Callable[[Mapping[str, np.ndarray]], Batch] = jax.device_put,
  evaluate: Evaluator | None = None,
) -> Result:
  """Train from the newest bundle in a folder, or from the start.

  Args:
    step_fn: the (jitted) step; may donate the state.
    state: of a run that starts; also says where arrays live.
    frozen: the frozen part of the parameters.
    batches: what to train on.
    settings: see `Settings`.
    folder: where bundles and logs go.
    manifest: JSON values that identify the run; a bundle found in the folder
      must have the same ones.
    about: more JSON values for bundles; may change when a run resumes.
    summarise: the objective's `summarise`.
    place: puts a host batch on the devices.
    evaluate: scores every run; None never evaluates.

  Returns:
    The last state, the best evaluation of every run, and why training ended.

  Raises:
    ValueError: the folder holds a run with other settings.
    CheckpointError: a bundle cannot be written, or all of them are damaged.
    DivergedError: no run has a finite loss any more.
  """
  loop = _Loop(
    step_fn, frozen, batches, settings, pathlib.Path(folder), dict(manifest)
  )
  loop.about = about
  loop.summarise, loop.place, loop.evaluate = summarise, place, evaluate
  with Preemption() as preemption:
    return loop.run(state, preemption)


class _Loop:
  """The parts of `train` as named steps."""

  about: Mapping[str, Any]
  summarise: Summarise
  place: Callable[[Mapping[str, np.ndarray]], Batch]
  evaluate: Evaluator | None

  def __init__(
    self,
    step_fn: StepFn,
    frozen: Params,
    batches: Batches,
    settings: Settings,
    folder: pathlib.Path,
    manifest: dict[str, Any],
  ):
    self.step_fn, self.frozen, self.batches = step_fn, frozen, batches
    self.settings, self.folder, self.manifest = settings, folder, manifest
    self.main = jax.process_index() == 0
    self.window: list[Metrics] = []
    self.warned: set[int] = set()
    self.shown: dict[str, str] = {}

  def run(self, state: TrainState, preemption: Preemption) -> Result:
    settings = self.settings
    state, self.progress = self._resume(state)
    step = int(state.step)
    num_runs = len(self.progress["best"])
    self.log = MetricsLog(
      self.folder, num_runs, settings.tensorboard and self.main
    )
    # Before the first step there may be an evaluation, which is done again.
    self.log.forget_after(settings.start_step + step - (step == 0))
    reason = "finished"
    with self._bar(step) as bar:
      self._start_clock()
      if step == 0 and settings.eval_at_start:
        with self._clock_stopped(state):
          self._evaluate(state, step, bar)
      while step < settings.num_steps and not self._out_of_patience():
        rows = next(self.batches)
        self.progress["tokens"] = _add_tokens(self.progress["tokens"], rows)
        batch = self.place(rows)
        state, metrics = self.step_fn(state, self.frozen, batch)
        self.window.append(metrics)
        step += 1
        bar.update()
        last = step == settings.num_steps
        stop = preemption.reached(step)
        if step % settings.log_period == 0 or last or stop:
          self._write_window(step, bar)
        evaluates = _due(step, settings.eval_period, last)
        saves = stop or _due(step, settings.save_period, last)
        if evaluates or saves:
          with self._clock_stopped(state):
            if evaluates:
              self._evaluate(state, step, bar)
            if saves:
              self._save(state, step)
        if stop and not last:
          reason = "preempted"
          break
    if reason == "finished" and self._out_of_patience():
      reason = "early stopping"
      self._save(state, step)
    self.log.close()
    tokens = self.progress["tokens"]
    return Result(state, self.progress["best"], reason, tuple(tokens))

  def _start_clock(self) -> None:
    """Measure time and tokens from here."""
    self.started = time.perf_counter()
    self.tokens_before = np.asarray(self.progress["tokens"])

  @contextlib.contextmanager
  def _clock_stopped(self, state: TrainState) -> Iterator[None]:
    """Leave the body's time out of the training speed."""
    jax.block_until_ready(state.step)
    stopped = time.perf_counter()
    yield
    self.started += time.perf_counter() - stopped

  def _bar(self, step: int) -> bars.tqdm:
    return bars.tqdm(
      total=self.settings.num_steps,
      initial=step,
      unit="step",
      disable=not (self.settings.progress_bar and self.main),
    )

  def _show(self, bar: bars.tqdm, **values: list[str]) -> None:
    """Show the first runs' newest numbers beside the bar."""
    self.shown |= {name: "/".join(own[:4]) for name, own in values.items()}
    bar.set_postfix(self.shown)

  def _resume(self, fresh: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Read the newest bundle, or start."""
    num_runs = fresh.dropout_keys.shape[0]
    found = bundle.read_latest(self.folder / BUNDLES)
    if found is None:
      return fresh, {"best": [None] * num_runs, "stale": 0, "tokens": [0, 0]}
    step, saved = found
    saved.insist_run(self.manifest, self.folder)
    state = train_state.from_arrays(fresh, saved.trainable, saved.resume)
    # As the fresh state: on the same devices, split in the same way.
    state = jax.tree.map(
      lambda new, old: jax.device_put(new, old.sharding), state, fresh
    )
    self.batches.set_state(saved.manifest["data"])
    logger.info("Continuing from step %d of %s.", step, self.folder)
    return state, dict(saved.manifest["progress"])

  def _save(self, state: TrainState, step: int) -> None:
    """Write a bundle from which training can go on exactly."""
    self._check_finite(step)
    path = bundle.step_path(self.folder / BUNDLES, step)
    contents = bundle.Bundle(
      manifest={
        **self.about,
        "run": self.manifest,
        "step": step,
        "data": self.batches.get_state(),
        "progress": self.progress,
      },
      trainable=bundle.to_host(tree.flatten(state.trainable)),
      resume=bundle.to_host(train_state.resume_arrays(state)),
    )
    if self.main:
      bundle.write(path, contents)
      bundle.keep_latest(path.parent, self.settings.keep)

  def _evaluate(self, state: TrainState, step: int, bar: bars.tqdm) -> None:
    """Score every run; keep the bundles of those that improved."""
    if self.evaluate is None:
      return
    results = self.evaluate(state.trainable)
    improved = False
    for run, result in enumerate(results):
      if self.main:
        shown = self.settings.start_step + step
        if result.metrics:
          self.log.write(shown, run, result.metrics, "inference_eval")
        if result.losses:
          self.log.write(shown, run, result.losses, "training_eval")
        self.log.write(shown, run, {"score": result.score}, "selection")
        if result.write is not None:
          result.write(shown)
      best = self.progress["best"][run]
      bar_to_beat = -math.inf if best is None else best["score"]
      if not result.score > bar_to_beat + self.settings.min_delta:
        continue
      improved = True
      self.progress["best"][run] = {
        "step": step,
        "score": float(result.score),
        "metrics": {k: float(v) for k, v in result.metrics.items()},
      }
      if self.settings.keep_best:
        self._save_best(state, step, run)
    self.progress["stale"] = 0 if improved else self.progress["stale"] + 1
    self._show(bar, score=[f"{result.score:.2f}" for result in results])

  def _save_best(self, state: TrainState, step: int, run: int) -> None:
    flat = bundle.to_host(tree.flatten(state.trainable))
    contents = bundle.Bundle(
      manifest={
        **self.about,
        "run": self.manifest,
        "step": step,
        "run_index": run,
        "best": self.progress["best"][run],
      },
      trainable={path: a[run : run + 1] for path, a in flat.items()},
    )
    if self.main:
      path = bundle.step_path(self.folder / BEST / f"run_{run}", step)
      bundle.write(path, contents)
      bundle.keep_latest(path.parent, 1)

  def _out_of_patience(self) -> bool:
    patience = self.settings.patience
    return patience is not None and self.progress["stale"] >= patience

  def _write_window(self, step: int, bar: bars.tqdm) -> None:
    """Log what happened since the last line."""
    count = len(self.window)
    sums, norms = self._fetch_window(step)
    seconds = time.perf_counter() - self.started
    metrics = dict(self.summarise(sums, count))
    metrics |= {f"{name}_rms": value for name, value in norms.items()}
    metrics["timing/seconds"] = np.asarray(seconds)
    metrics["timing/steps_per_second"] = np.asarray(count / seconds)
    metrics["timing/seqs_per_second"] = sums["sequences"] / seconds
    metrics["timing/target_tokens_per_second"] = sums["weights"] / seconds
    tokens = np.asarray(self.progress["tokens"]) - self.tokens_before
    metrics["timing/tokens_per_second"] = np.asarray(tokens.sum() / seconds)
    if self.settings.flops_per_token is not None:
      flops = tokens @ np.asarray(self.settings.flops_per_token)
      metrics["timing/flops_per_second"] = np.asarray(flops / seconds)
    if self.main:
      for run in range(len(self.progress["best"])):
        own = {
          tag: float(np.broadcast_to(value, (run + 1,))[run])
          if value.ndim == 0
          else float(value[run])
          for tag, value in metrics.items()
        }
        self.log.write(self.settings.start_step + step, run, own, "train")
    self._show(bar, loss=[f"{loss:.3g}" for loss in metrics["loss"]])
    self._start_clock()

  def _fetch_window(
    self, step: int
  ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Bring the window's metrics to the host and clear it."""
    window = jax.device_get(self.window)
    sums = {
      name: np.sum([np.asarray(m.sums[name], np.float64) for m in window], 0)
      for name in window[0].sums
    }
    self._note_divergence(window[-1], step)
    self.window = []
    return sums, window[-1].norms

  def _check_finite(self, step: int) -> None:
    """Refuse to write a bundle of runs that have all diverged."""
    if self.window:
      self._note_divergence(jax.device_get(self.window[-1]), step)

  def _note_divergence(self, metrics: Metrics, step: int) -> None:
    """Warn of runs that are lost; stop when all of them are."""
    finite = np.isfinite(metrics.sums["loss"])
    finite &= np.isfinite(metrics.norms["update"])
    if not finite.any():
      raise DivergedError(
        f"The loss is not finite at step {step} (all {len(finite)} runs). The "
        f"last bundle in {self.folder / BUNDLES} is from before; lower the "
        "learning rate, or continue from there with other settings."
      )
    for run in np.flatnonzero(~finite):
      if run not in self.warned:
        self.warned.add(int(run))
        logger.warning("Run %d: the loss is not finite, step %d.", run, step)


def _add_tokens(seen: Sequence[int], batch: Mapping[str, Any]) -> list[int]:
  """Count a batch's encoder and decoder tokens, on all hosts alike.

  A batch of features of its own, which may have neither, adds nothing.
  """
  names = ("encoder_input_tokens", "decoder_target_tokens")
  counts = [int(np.count_nonzero(batch.get(n, 0))) for n in names]
  hosts = jax.process_count()
  return [a + b * hosts for a, b in zip(seen, counts, strict=True)]


def _due(step: int, period: int, last: bool) -> bool:
  return last or (period > 0 and step % period == 0)
