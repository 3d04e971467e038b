"""The training loop: log, evaluate, keep best and last, stop, resume.

A bundle holds everything that decides how training continues: the state, the
position in the data, the best scores so far, and sums that are not in the log
yet. A run that was killed at any moment continues from its last bundle as if
nothing had happened, bit for bit.

The record of best scores in a bundle names bundles below `best`. Those that the
record of any bundle names are kept, whatever their number.
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

from prompt_tuning.checkpoints import bundle, json_files
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import files, schema, sole_writer, tree
from prompt_tuning.core.schema import ANY, Each, Fault
from prompt_tuning.core.types import Batch, Params
from prompt_tuning.train import progress_bar, reach
from prompt_tuning.train import state as train_state
from prompt_tuning.train.errors import DivergedError as DivergedError
from prompt_tuning.train.logs import MetricsLog
from prompt_tuning.train.preemption import Preemption
from prompt_tuning.train.progress_bar import ProgressBar, ProgressLines
from prompt_tuning.train.state import TrainState
from prompt_tuning.train.step import Metrics

BUNDLES, BEST = bundle.BUNDLES, bundle.BEST
# Tags of the log, after `train/`.
STEPS_PER_SECOND, STEP_BYTES = "timing/steps_per_second", "memory/step_bytes"
_COUNT, _WINDOW = "window_count", "window/"  # names among a bundle's arrays

logger = logging.getLogger(__name__)


class RunEvaluation(NamedTuple):
  """The result of an evaluation for one run.

  Attributes:
    score: the number that selects the best step: the task's metric, or the mean
      of several.
    metrics: tag (`<task>/<metric>`) -> number.
    losses: `<task>/<T5X's tag>` -> number, of the training loss on this split.
    write: function that writes the answers to files, given the step; None if
      there are none.
  """

  score: float
  metrics: Mapping[str, float]
  losses: Mapping[str, float] = types.MappingProxyType({})
  write: Callable[[int], None] | None = None


# Run -> {"step", "score", "metrics"} of its best evaluation, or None.
Records = list[dict[str, Any] | None]
_MODEL = "model"  # under which the frozen part has the backbone
_TUNER = "tuner"  # and a tuning method its parameters
# Number of steps after which every leaf should have had a gradient. In the
# first step a leaf may have none, such as a factor that is multiplied with
# zeros.
_ENOUGH_STEPS = 10
# The trainable part of all runs -> one evaluation per run.
Evaluator = Callable[[Params], Sequence[RunEvaluation]]
StepFn = Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]
# (sums over some steps, number of steps) -> {T5X's tag: [K]}.
Summarise = Callable[[Mapping[str, np.ndarray], int], Mapping[str, np.ndarray]]


class Batches(Protocol):
  """An endless iterator of host batches whose position can be saved."""

  def __next__(self) -> Mapping[str, np.ndarray]:
    """Return the next batch."""
    ...

  def get_state(self) -> dict[str, Any]:
    """Return the position as JSON values."""
    ...

  def set_state(self, state: dict[str, Any]) -> None:
    """Continue from the position that `get_state` returned."""
    ...


@dataclasses.dataclass(frozen=True)
class Settings:
  """How long to train, and what else to do. Periods are in steps.

  Attributes:
    num_steps: number of all updates, also those before a resume.
    start_step: added to step numbers in logs, as T5X counts.
    log_period: steps between lines of the log.
    eval_period: steps between evaluations; 0 evaluates only at the end.
    eval_at_start: whether to evaluate before the first step, too.
    save_period: steps between bundles; 0 saves only at the end.
    keep: bundles to keep besides the best.
    patience: evaluations without improvement of any run after which training
      stops; None never stops early.
    keep_best: whether to keep a bundle of every run's best evaluation, too.
    flops_per_token: floating-point operations of training per encoder token and
      per decoder token, for the log of operations per second.
    progress_bar: whether to draw one.
    run_names: names of the runs in a progress bar; by default their numbers.
    tensorboard: whether to write event files.
    insist_on_gradients: whether it is an error if a leaf of the method has no
      gradient in the run's first steps. Otherwise it is a warning, as in later
      steps, because a leaf that has finished learning needs no gradient.
  """

  num_steps: int
  start_step: int = 0
  log_period: int = 100
  eval_period: int = 1_000
  eval_at_start: bool = False
  save_period: int = 1_000
  keep: int = 2
  patience: int | None = None
  keep_best: bool = True
  flops_per_token: tuple[float, float] | None = None
  progress_bar: bool = True
  run_names: Sequence[str] | None = None
  tensorboard: bool = True
  insist_on_gradients: bool = True

  def __post_init__(self) -> None:
    least = {"num_steps": 1, "log_period": 1, "keep": 1}
    least |= {"eval_period": 0, "save_period": 0}
    for name, bound in least.items():
      if getattr(self, name) < bound:
        value = getattr(self, name)
        raise ValueError(f"{name} must be at least {bound}; got {value}.")

  def describe(self, step: int) -> str:
    """Write a step as T5X counts it, and as the run counts it.

    Args:
      step: updates of the run.

    Returns:
      A text such as `step 1,100,020 (20 of 150)`, or `step 20 of 150` if both
      agree.
    """
    relative = f"{step:,} of {self.num_steps:,}"
    if not self.start_step:
      return f"step {relative}"
    return f"step {self.start_step + step:,} ({relative})"


class Result(NamedTuple):
  """How training ended.

  Attributes:
    state: the last state.
    best: per run, {"step", "score", "metrics"} of its best evaluation, or None.
    reason: `finished`, `early stopping` or `preempted`.
    diverged: per run, after how many steps its loss was first found not to be
      finite, or None. If all runs had diverged, there would be no result.
    tokens: number of encoder and decoder tokens of training, also those before
      a resume.
    signal: number of the signal that preempted it.
  """

  state: TrainState
  best: Records
  reason: str
  diverged: Sequence[int | None]
  tokens: tuple[int, int] = (0, 0)
  signal: int | None = None


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
  shard: Callable[[Mapping[str, np.ndarray]], Batch] = jax.device_put,
  evaluate: Evaluator | None = None,
  peak_bytes: Callable[[], int | None] = lambda: None,
) -> Result:
  """Train from the newest bundle in a folder, or from the start.

  Args:
    step_fn: the (jitted) step; may donate the state.
    state: the initial state; it also defines how arrays are sharded.
    frozen: the frozen part of the parameters.
    batches: the training data.
    settings: see `Settings`.
    folder: folder for bundles and logs.
    manifest: JSON values that identify the run; a bundle in the folder must
      have the same ones.
    about: more JSON values for bundles; may change when a run resumes.
    summarise: the objective's `summarise`.
    shard: puts a host batch on the devices.
    evaluate: scores every run; None never evaluates.
    peak_bytes: returns the memory of a step for the log, if it is known.

  Returns:
    The last state, the best evaluation of every run, and why training ended.

  Raises:
    ValueError: the folder holds a run with other settings.
    CheckpointError: a bundle cannot be written, or all bundles are damaged.
    DivergedError: no run has a finite loss any more.
    UnreachedError: a leaf has no gradient.
  """
  bundles = _Bundles(
    files.path(folder),
    dict(manifest),
    about,
    settings.keep,
    settings.keep_best and evaluate is not None,
    bundle.to_host(
      tree.flatten({k: v for k, v in frozen.items() if k != _MODEL})
    ),
  )
  with contextlib.ExitStack() as around:
    preemption = around.enter_context(Preemption())
    state, progress, window = bundles.resume(state, batches)
    step = int(state.step)
    if step:
      has_ended = step >= settings.num_steps
      how = "has been trained to" if has_ended else "goes on from"
      logger.info("%s %s %s.", bundles.folder, how, settings.describe(step))
    log = MetricsLog(
      bundles.folder, len(progress.best), settings.tensorboard and _is_main()
    )
    around.callback(log.close)
    # An evaluation before the first step may run a second time.
    log.forget_after(settings.start_step + step - (step == 0))
    loop = _Loop(
      step_fn=step_fn,
      frozen=frozen,
      batches=batches,
      settings=settings,
      summarise=summarise,
      shard=shard,
      evaluate=evaluate,
      peak_bytes=peak_bytes,
      preemption=preemption,
      bundles=bundles,
      log=log,
      bar=around.enter_context(_bar(settings, step, len(progress.best))),
      progress=progress,
      clock=_Clock(progress.tokens),
      window=window,
    )
    return loop.run(state)


@dataclasses.dataclass
class _Progress:
  """What decides how training continues, in addition to the state.

  Attributes:
    best: see `Result`.
    stale: evaluations since any run improved.
    tokens: encoder and decoder tokens trained on.
    diverged: see `Result`.
  """

  best: Records
  stale: int
  tokens: list[int]
  diverged: list[int | None]

  @classmethod
  def new(cls, runs: int) -> "_Progress":
    """Return that of runs that have not begun."""
    return cls([None] * runs, 0, [0, 0], [None] * runs)


@dataclasses.dataclass(frozen=True)
class _Window:
  """What happened since the last line of the log, summed step by step.

  Attributes:
    count: steps.
    sums: their sums, in float64.
  """

  count: int = 0
  sums: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def plus(self, steps: Sequence[Metrics]) -> "_Window":
    """Add steps whose metrics are on the host.

    It adds them one by one, so that rounding does not depend on where a run was
    interrupted.
    """
    sums = dict(self.sums)
    for metrics in steps:
      for name, value in metrics.sums.items():
        added = np.asarray(value, np.float64)
        sums[name] = sums[name] + added if name in sums else added
    return _Window(self.count + len(steps), sums)

  def arrays(self) -> dict[str, np.ndarray]:
    """Return the arrays for a bundle by name."""
    named = {f"{_WINDOW}{name}": total for name, total in self.sums.items()}
    return {_COUNT: np.asarray(self.count), **named}

  @classmethod
  def from_arrays(cls, named: Mapping[str, np.ndarray]) -> "_Window":
    """Undo `arrays`; bundles of older versions lack these arrays."""
    sums = {
      name.removeprefix(_WINDOW): total
      for name, total in named.items()
      if name.startswith(_WINDOW)
    }
    return cls(int(named.get(_COUNT, 0)), sums)


class _Clock:
  """Time and tokens since the last line of the log.

  Args:
    tokens: trained on before.
  """

  def __init__(self, tokens: Sequence[int]):
    self.restart(tokens)

  def restart(self, tokens: Sequence[int]) -> None:
    """Start measuring now."""
    self._started = time.perf_counter()
    self._tokens = np.asarray(tokens)

  @property
  def seconds(self) -> float:
    """Seconds that training took."""
    return time.perf_counter() - self._started

  def tokens(self, now: Sequence[int]) -> np.ndarray:
    """Count encoder and decoder tokens."""
    return np.asarray(now) - self._tokens

  @contextlib.contextmanager
  def stopped(self, state: TrainState) -> Iterator[None]:
    """Do not count the time of the body; steps that still run do count."""
    jax.block_until_ready(state.step)
    stopped = time.perf_counter()
    yield
    self._started += time.perf_counter() - stopped


def _faults(manifest: Mapping[str, Any], runs: int) -> list[Fault]:
  """List what a bundle lacks that training needs to continue."""
  wanted = {"data": Each(ANY), "progress": Each(ANY)}
  if faults := schema.faults(dict(manifest), wanted):
    return faults
  progress = _saved_progress(manifest, runs)
  names = [field.name for field in dataclasses.fields(_Progress)]
  if set(progress) != set(names):
    return [Fault("progress", f"the keys {names}", f"{sorted(progress)}")]
  return [
    Fault(f"progress.{name}", f"{count} of them", str(len(progress[name])))
    for name, count in (("best", runs), ("tokens", 2), ("diverged", runs))
    if len(progress[name]) != count
  ]


def _saved_progress(manifest: Mapping[str, Any], runs: int) -> dict[str, Any]:
  """Read the progress of a bundle; those of older versions lack `diverged`."""
  return {"diverged": [None] * runs, **manifest["progress"]}


@dataclasses.dataclass(frozen=True)
class _Bundles:
  """The bundles of a run.

  Attributes:
    folder: of the run.
    manifest: identifies the run.
    about: more JSON values.
    keep: how many are kept besides the best.
    keep_best: whether the best are kept.
    fixed: {path: array} of the method's parameters that do not train.
  """

  folder: pathlib.Path
  manifest: dict[str, Any]
  about: Mapping[str, Any]
  keep: int
  keep_best: bool
  fixed: bundle.Arrays

  def resume(
    self, fresh: TrainState, batches: Batches
  ) -> tuple[TrainState, _Progress, _Window]:
    """Continue from the newest bundle, or start."""
    latest = bundle.read_latest(self.folder / BUNDLES)
    num_runs = fresh.dropout_keys.shape[0]
    if latest is None:
      return fresh, _Progress.new(num_runs), _Window()
    step, saved = latest
    saved.insist_run(self.manifest, self.folder)
    self._insist_fixed(saved)
    state = train_state.from_arrays(fresh, saved.trainable, saved.resume)
    json_files.refuse(
      bundle.step_path(self.folder / BUNDLES, step) / bundle.MANIFEST,
      _faults(saved.manifest, num_runs),
    )
    # Like the initial state: on the same devices, sharded in the same way.
    state = jax.tree.map(
      lambda new, old: jax.device_put(new, old.sharding), state, fresh
    )
    batches.set_state(saved.manifest["data"])
    progress = _Progress(**_saved_progress(saved.manifest, num_runs))
    self._forget_lost(progress.best)
    # A newer bundle must be damaged, because otherwise training would continue
    # from it. It stays until a new one replaces it.
    newer = [s for s in bundle.steps(self.folder / BUNDLES) if s > step]
    self._collect(step, progress.best, newer)
    return state, progress, _Window.from_arrays(saved.resume)

  def save(
    self,
    state: TrainState,
    step: int,
    batches: Batches,
    progress: _Progress,
    window: _Window,
  ) -> None:
    """Write a bundle from which training resumes exactly."""
    resume = bundle.to_host(train_state.resume_arrays(state))
    contents = bundle.Bundle(
      manifest={
        **self.about,
        "run": self.manifest,
        "step": step,
        "data": batches.get_state(),
        "progress": dataclasses.asdict(progress),
      },
      trainable=bundle.to_host(tree.flatten(state.trainable)),
      resume={**resume, **window.arrays()},
      fixed=self.fixed,
    )
    self._write(self.folder / BUNDLES, step, contents)
    self._collect(step, progress.best)

  def save_best(
    self, state: TrainState, step: int, runs: Sequence[int], best: Records
  ) -> None:
    """Write the trainable part of those runs for which this is the best."""
    flat = bundle.to_host(tree.flatten(state.trainable))
    for run in runs:
      contents = bundle.Bundle(
        manifest={
          **self.about,
          "run": self.manifest,
          "step": step,
          "run_index": run,
          "best": best[run],
        },
        trainable={path: a[run : run + 1] for path, a in flat.items()},
        fixed={path: a[run : run + 1] for path, a in self.fixed.items()},
      )
      self._write(self._best(run), step, contents)
    saved = bundle.steps(self.folder / BUNDLES)
    self._collect(step, best, saved)

  def _insist_fixed(self, saved: bundle.Bundle) -> None:
    """Insist that parameters that do not train have their old values."""
    changed = [
      path
      for path, array in saved.fixed.items()
      if not np.array_equal(array, self.fixed.get(path, ()))
    ]
    if changed:
      raise ValueError(
        f"{self.folder} cannot be continued: {', '.join(changed)} of the "
        "tuning method do not train, but have other values than in the saved "
        "run. Restore the settings and files that they come from, or choose "
        "another MODEL_DIR."
      )

  def _write(
    self, folder: pathlib.Path, step: int, contents: bundle.Bundle
  ) -> None:
    if _is_main():
      sole_writer.insist(self.folder)
      bundle.write(bundle.step_path(folder, step), contents)

  def _best(self, run: int) -> pathlib.Path:
    return self.folder / BEST / f"run_{run}"

  def _forget_lost(self, best: Records) -> None:
    """Forget best steps that are missing: the next score is compared with none.

    Otherwise a run whose best step was deleted could never end.
    """
    if not self.keep_best:
      return
    for run, record in enumerate(best):
      if record is None:
        continue
      path = bundle.step_path(self._best(run), record["step"])
      try:
        saved = bundle.read(path)
        is_ours = saved.manifest.get("run_index") == run
        if is_ours and saved.is_run(self.manifest):
          continue
        why = "it is another training's, or another run's"
      except CheckpointError as error:
        why = str(error)
      logger.warning(
        "The best step of run %d so far is lost: only later steps count. %s: "
        "%s",
        *(run, path, why),
      )
      best[run] = None

  def _collect(
    self, step: int, best: Records, others: Sequence[int] = ()
  ) -> None:
    """Delete what nothing needs any more; the next call finishes a killed one.

    Args:
      step: where training stands.
      best: its record.
      others: bundles that stay besides the newest.
    """
    if not _is_main():
      return
    folder = self.folder / BUNDLES
    # Steps with larger numbers belong to an older training that was abandoned.
    past = [s for s in bundle.steps(folder) if s <= step]
    bundle.keep_only(folder, {*past[-self.keep :], *others})
    if not self.keep_best:
      return
    manifests = bundle.manifests(folder)
    records = [best, *(m["progress"]["best"] for m in manifests)]
    for run, of_run in enumerate(zip(*records, strict=True)):
      named = {record["step"] for record in of_run if record is not None}
      bundle.keep_only(self._best(run), named)


@dataclasses.dataclass
class _Loop:
  """All that the steps of `train` work with; see its arguments.

  Attributes:
    preemption: says when to stop.
    bundles: where to save.
    log: where to log.
    bar: shows how far training is.
    progress: changes with every step.
    clock: measures speed.
    window: of the process before, since the last line of the log.
    steps: metrics of this process since then.
    squares: of the gradients of this process's first steps.
  """

  step_fn: StepFn
  frozen: Params
  batches: Batches
  settings: Settings
  summarise: Summarise
  shard: Callable[[Mapping[str, np.ndarray]], Batch]
  evaluate: Evaluator | None
  peak_bytes: Callable[[], int | None]
  preemption: Preemption
  bundles: _Bundles
  log: MetricsLog
  bar: ProgressBar | ProgressLines
  progress: _Progress
  clock: _Clock
  window: _Window
  steps: list[Metrics] = dataclasses.field(default_factory=list)
  squares: list[Any] = dataclasses.field(default_factory=list)

  def run(self, state: TrainState) -> Result:
    """Train until the end, or until something asks to stop."""
    settings = self.settings
    step, reason = int(state.step), "finished"
    if step == 0 and settings.eval_at_start:
      with self.clock.stopped(state):
        self._evaluate(state, step)
    while step < settings.num_steps and not self._is_out_of_patience():
      state = self._step(state)
      step += 1
      self.bar.update()
      last = step == settings.num_steps
      stop = self.preemption.reached(step)
      # If training only pauses, the line is written when it continues.
      if step % settings.log_period == 0 or last:
        self._write_window(step)
      evaluates = _due(step, settings.eval_period, last)
      saves = stop or _due(step, settings.save_period, last)
      if evaluates or saves:
        with self.clock.stopped(state):
          if evaluates:
            self._evaluate(state, step)
          if saves:
            self._save(state, step)
      if stop and not last:
        reason = "preempted"
        break
    if reason == "finished" and self._is_out_of_patience():
      reason = "early stopping"
      self._save(state, step)
    encoder, decoder = self.progress.tokens
    signal = self.preemption.signal if reason == "preempted" else None
    tokens, progress = (encoder, decoder), self.progress
    return Result(
      state, progress.best, reason, progress.diverged, tokens, signal
    )

  def _step(self, state: TrainState) -> TrainState:
    rows = next(self.batches)
    self.progress.tokens = _add_tokens(self.progress.tokens, rows)
    state, metrics = self.step_fn(state, self.frozen, self.shard(rows))
    self.steps.append(metrics)
    if len(self.squares) < _ENOUGH_STEPS and metrics.squares is not None:
      self.squares.append(metrics.squares)
      if len(self.squares) == _ENOUGH_STEPS:
        self._insist_on_gradients(state)
    return state

  def _insist_on_gradients(self, state: TrainState) -> None:
    """Refuse to continue if a parameter that should train has no gradient."""
    squares = jax.device_get(self.squares)
    begins = int(state.step) == len(squares)
    must = _TUNER if begins and self.settings.insist_on_gradients else None
    for remark in reach.insist_nonzero(state.trainable, squares, must):
      logger.warning("%s", remark)

  def _save(self, state: TrainState, step: int) -> None:
    steps = jax.device_get(self.steps)
    if steps:  # save nothing if all runs diverged
      self._note_divergence(steps[-1], step)
    window = self.window.plus(steps)
    self.log.put(at_once=True)
    self.bundles.save(state, step, self.batches, self.progress, window)

  def _evaluate(self, state: TrainState, step: int) -> None:
    """Score every run; keep the bundles of those that improved."""
    if self.evaluate is None:
      return
    evaluations = self.evaluate(state.trainable)
    improved = []
    for run, evaluation in enumerate(evaluations):
      self._log_evaluation(step, run, evaluation)
      best = self.progress.best[run]
      bar_to_beat = -math.inf if best is None else best["score"]
      if not evaluation.score > bar_to_beat:  # nor is NaN
        continue
      improved.append(run)
      self.progress.best[run] = {
        "step": step,
        "score": float(evaluation.score),
        "metrics": {k: float(v) for k, v in evaluation.metrics.items()},
      }
    if improved and self.settings.keep_best:
      self.bundles.save_best(state, step, improved, self.progress.best)
    self.progress.stale = 0 if improved else self.progress.stale + 1
    self.bar.show("score", [evaluation.score for evaluation in evaluations])

  def _log_evaluation(
    self, step: int, run: int, evaluation: RunEvaluation
  ) -> None:
    if not _is_main():
      return
    number = self.settings.start_step + step
    if evaluation.metrics:
      self.log.write(number, run, evaluation.metrics, "inference_eval")
    if evaluation.losses:
      self.log.write(number, run, evaluation.losses, "training_eval")
    self.log.write(number, run, {"score": evaluation.score}, "selection")
    if evaluation.write is not None:
      evaluation.write(number)

  def _is_out_of_patience(self) -> bool:
    patience = self.settings.patience
    return patience is not None and self.progress.stale >= patience

  def _write_window(self, step: int) -> None:
    """Log what happened since the last line.

    The speed is that of this process, because the time of an earlier process is
    not known.
    """
    steps = jax.device_get(self.steps)
    self._note_divergence(steps[-1], step)
    window, timed = self.window.plus(steps), _Window().plus(steps)
    self.window, self.steps = _Window(), []
    seconds = self.clock.seconds
    metrics = dict(self.summarise(window.sums, window.count))
    metrics |= {f"{name}_rms": norm for name, norm in steps[-1].norms.items()}
    metrics["timing/seconds"] = np.asarray(seconds)
    metrics[STEPS_PER_SECOND] = np.asarray(timed.count / seconds)
    metrics["timing/seqs_per_second"] = timed.sums["sequences"] / seconds
    metrics["timing/target_tokens_per_second"] = timed.sums["weights"] / seconds
    tokens = self.clock.tokens(self.progress.tokens)
    metrics["timing/tokens_per_second"] = np.asarray(tokens.sum() / seconds)
    if self.settings.flops_per_token is not None:
      flops = tokens @ np.asarray(self.settings.flops_per_token)
      metrics["timing/flops_per_second"] = np.asarray(flops / seconds)
    if (peak := self.peak_bytes()) is not None:
      metrics[STEP_BYTES] = np.asarray(peak)
    if _is_main():
      for run in range(len(self.progress.best)):
        of_run = {
          tag: float(value if value.ndim == 0 else value[run])
          for tag, value in metrics.items()
        }
        self.log.write(self.settings.start_step + step, run, of_run, "train")
      self.log.put(at_once=False)
    self.bar.show("loss", metrics["loss"])
    self.clock.restart(self.progress.tokens)

  def _note_divergence(self, metrics: Metrics, step: int) -> None:
    """Warn of runs that diverged; stop if all of them did."""
    finite = np.isfinite(metrics.sums["loss"])
    finite &= np.isfinite(metrics.norms["update"])
    diverged = self.progress.diverged
    lost = [run for run in np.flatnonzero(~finite) if diverged[run] is None]
    for run in lost:
      diverged[run] = step
    if None not in diverged:
      raise DivergedError(
        f"The loss is not finite at {self.settings.describe(step)}, of all "
        f"{len(finite)} runs. The last bundle in "
        f"{self.bundles.folder / BUNDLES} is from before that. Lower the "
        "learning rate, or continue from that bundle with other settings."
      )
    for run in lost:
      name, when = self.bar.names[run], self.settings.describe(step)
      logger.warning("Run %s: the loss is not finite, %s.", name, when)


def _is_main() -> bool:
  """Whether this host writes files and shows a bar."""
  return jax.process_index() == 0


def _bar(
  settings: Settings, step: int, num_runs: int
) -> ProgressBar | ProgressLines:
  names = settings.run_names or list(map(str, range(num_runs)))
  shown = settings.progress_bar and _is_main()
  return progress_bar.make(names, settings.num_steps, step, shown)


def _add_tokens(seen: Sequence[int], batch: Mapping[str, Any]) -> list[int]:
  """Count a batch's encoder and decoder tokens, equally on all hosts.

  A batch with other features may have neither, and then adds nothing.
  """
  names = ("encoder_input_tokens", "decoder_target_tokens")
  counts = [int(np.count_nonzero(batch.get(n, 0))) for n in names]
  hosts = jax.process_count()
  return [a + b * hosts for a, b in zip(seen, counts, strict=True)]


def _due(step: int, period: int, last: bool) -> bool:
  return last or (period > 0 and step % period == 0)
