"""The end of a training: score, export and explain its best step."""

import collections
import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints import bundle, fingerprint
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import files, text, tree
from prompt_tuning.core.partition import FREEZE
from prompt_tuning.core.types import Array, Params
from prompt_tuning.data import templated
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.evaluate import EvalSet, Job, Result
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import (
  export,
  learning_curve,
  load,
  model_dir,
  run_scores,
  same_vocabulary,
  slots,
  summary,
)
from prompt_tuning.jobs.comparison import PLAIN, RANDOM
from prompt_tuning.jobs.setup import Setup, task_words
from prompt_tuning.jobs.train_job import Output, Run
from prompt_tuning.models.t5 import quantized
from prompt_tuning.train import logs, loop, optimizers
from prompt_tuning.train.errors import StoppedError
from prompt_tuning.tuners import interpret
from prompt_tuning.tuners.method import Method, noun_of

SUMMARY, CURVE = "summary.txt", "learning_curve.png"
_WIDTH = 100  # columns of a line where there is no screen

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
  """A training that has ended.

  Attributes:
    result: how it ended.
    runs: the trained runs.
    output: where it was written, and whether controls are wanted.
    model: the backbone.
    setup: program, frozen part and tuners; the first state no longer exists.
    vocabulary: that of the model.
    run_evaluator: evaluates runs; None without evaluation.
    start_step: first step of the optimizer.
    mesh: mesh of all arrays.
    checksum: checksum of the frozen part before training, if it was requested.
  """

  result: loop.Result
  runs: tuple[Run, ...]
  output: Output
  model: Backbone
  setup: Setup
  vocabulary: Vocabulary
  run_evaluator: run_scores.RunEvaluator | None
  start_step: int
  mesh: Mesh | None
  checksum: str | None

  @property
  def ending(self) -> str:
    """Why training ended, and when."""
    steps = int(self.result.state.step)
    after = f"{self.result.reason} after {steps:,} steps"
    if not self.start_step:
      return after
    return f"{after}, at step {self.start_step + steps:,}"

  def insist_on_an_end(self) -> None:
    """Insist that training was not stopped before its end.

    Raises:
      StoppedError: it was.
    """
    if self.result.signal is not None:
      raise StoppedError(self.result.signal, self.ending)


def finish(
  outcome: Outcome, chosen: tuple[list[int], Params] | None = None
) -> str:
  """Score and export the best of every run, and report the results.

  Args:
    outcome: a training that has ended.
    chosen: the result of `best`, if it was called already.

  Returns:
    A text for people, with scores and paths at the end. MODEL_DIR has all of
    it.

  Raises:
    CheckpointError: an export cannot be written.
    OSError: another file cannot.
    ValueError: another training writes to MODEL_DIR.
  """
  with model_dir.held(outcome.output.model_dir):
    return _finish(outcome, chosen)


def _finish(outcome: Outcome, chosen: tuple[list[int], Params] | None) -> str:
  steps, trainable = chosen or best(outcome)
  folder = files.path(outcome.output.model_dir)
  scores = ""
  if outcome.run_evaluator is not None:
    rows = [*_rows(outcome, steps, trainable), *_controls(outcome, trainable)]
    scores = summary.scores_by_task(rows)
  proof, lost = _proof(outcome), _lost(outcome)
  whole = [scores, lost, f"{_parameters(outcome)}\n{proof}".rstrip()]
  tokens, exported = "", _Exports()
  if outcome.setup.tuners:
    runs = runs_of(outcome, trainable)
    exported = _export(outcome, runs, steps, folder)
    tokens, all_tokens = _neighbours(outcome, runs)
    whole += [all_tokens, exported.whole]
  if jax.process_index() == 0:
    entries = logs.read(folder)
    learning_curve.draw(
      entries, outcome.runs, folder / CURVE, outcome.start_step
    )
    whole.append(f"learning curve: {folder / CURVE}")
    files.write_text(folder / SUMMARY, "\n\n".join(filter(None, whole)) + "\n")
  paths = [
    f"everything above, and more: {folder / SUMMARY}",
    f"learning curve: {folder / CURVE}",
    *exported.lines,
  ]
  shown = [tokens, *exported.notes, proof, scores, lost, "\n".join(paths)]
  return "\n\n".join(filter(None, shown))


def best(outcome: Outcome) -> tuple[list[int], Params]:
  """Collect the best step of every run, or its last if none was kept.

  Args:
    outcome: of a training that has ended.

  Returns:
    The steps, counted as T5X does, and the trainable part of all runs.
  """
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("best bundles are written")
  on_devices = tree.flatten(outcome.result.state.trainable)
  last = bundle.to_host(on_devices)
  last_step = int(outcome.result.state.step)
  steps, params = [], []
  for k, record in enumerate(_kept(outcome)):
    of_run = {path: a[k : k + 1] for path, a in last.items()}
    step = last_step
    if record is not None:
      root = files.path(outcome.output.model_dir)
      folder = root / loop.BEST / f"run_{k}"
      step = record["step"]
      of_run = dict(bundle.read(bundle.step_path(folder, step)).trainable)
    steps.append(step + outcome.start_step)
    params.append(of_run)
  whole = {
    path: optimizers.put_like(np.concatenate([p[path] for p in params]), like)
    for path, like in on_devices.items()
  }
  return steps, tree.unflatten(whole)


def _kept(outcome: Outcome) -> loop.Records:
  """List the best evaluations of which bundles were kept."""
  records = outcome.result.best
  return records if outcome.output.keep_best else [None] * len(records)


def runs_of(outcome: Outcome, trainable: Params) -> Runs:
  """Let the tuning methods make runs from the trained parameters."""
  program = outcome.setup.program
  params = program.partition.merge(trainable, outcome.setup.frozen)
  delta = program.produce(params["tuner"], None)
  return outcome.setup.runs(delta)


def _rows(
  outcome: Outcome, steps: Sequence[int], trainable: Params
) -> list[summary.Row]:
  metrics = _metrics(outcome, trainable)
  return [
    summary.Row(run.name or "trained", step, of_run, run.group)
    for run, step, of_run in zip(outcome.runs, steps, metrics, strict=True)
  ]


def _metrics(outcome: Outcome, trainable: Params) -> list[Mapping[str, float]]:
  """Take the metrics of every run's best evaluation.

  If a run has none, because it diverged, all runs are evaluated as they are.
  """
  records = _kept(outcome)
  if outcome.run_evaluator is None or all(
    record is not None for record in records
  ):
    return [{} if record is None else record["metrics"] for record in records]
  results = outcome.run_evaluator.results(trainable)
  return [run_scores.summary(of_run).metrics for of_run in results]


def _controls(outcome: Outcome, trainable: Params) -> list[summary.Row]:
  """Score the model alone, and with random numbers, on every task.

  Tasks whose texts have places for virtual tokens are not for the model alone.
  The random ones are those of the task's first run, see `Method.control`.
  """
  run_evaluator, tuners = outcome.run_evaluator, outcome.setup.tuners
  if not (outcome.output.controls and run_evaluator and tuners):
    return []
  trained = runs_of(outcome, trainable)
  tasks = [run.task for run in outcome.runs]
  jobs, controls, labels = [], [Runs()], [PLAIN]
  for task, sets in run_evaluator.sets.items():
    jobs += [Job(dataset, run=0) for dataset in without_soft(sets)]
    first = tasks.index(task)
    method = outcome.setup.tuners[first]
    by_slot = collections.defaultdict(list)
    for dataset in sets:
      slot = slots.find(outcome.setup.slots, first, dataset.task.name)
      by_slot[slot].append(dataset)
    for slot, datasets in by_slot.items():
      random = random_control(trained, slot, method, jax.random.key(slot))
      if random is not None:
        jobs += [Job(dataset, run=len(controls)) for dataset in datasets]
        controls.append(random)
        labels.append(random_label(method))
  if not jobs:
    return []
  results = run_evaluator.evaluate(join(controls), outcome.model.params, jobs)
  by_label: dict[str, list[Result]] = {}
  for result in results:
    by_label.setdefault(labels[result.job.run], []).append(result)
  return [
    summary.Row(label, None, run_scores.summary(group).metrics, is_control=True)
    for label, group in by_label.items()
  ]


def without_soft(sets: Sequence[EvalSet]) -> list[EvalSet]:
  """Leave out sets that the frozen model cannot read, and log it.

  Args:
    sets: of any tasks.
  """
  readable = []
  for dataset in sets:
    if dataset.has_soft:
      logger.warning(
        "%s: the model alone is not scored, because it has no vectors for the "
        "soft tokens of the template.",
        dataset.task.name,
      )
    else:
      readable.append(dataset)
  return readable


def random_control(
  trained: Runs, slot: int, method: Method, key: Array
) -> Runs | None:
  """Replace the learned numbers of one run by random ones of the same norms.

  Args:
    trained: any runs.
    slot: number of one of them.
    method: that it was made by.
    key: random key.

  Returns:
    One run; None where the method has no such control.
  """
  one = trained.one(slot)
  delta = method.control(one.delta, key)
  return None if delta is None else dataclasses.replace(one, delta=delta)


def random_label(method: Method) -> str:
  """Return the name of a method's random control in reports."""
  return f"{RANDOM}{noun_of(type(method))}"


def _lost(outcome: Outcome) -> str:
  """Name the runs that diverged; empty if none did."""
  lost = [
    f"{run.name}, whose loss is not finite at step "
    f"{outcome.start_step + step:,}"
    for run, step in zip(outcome.runs, outcome.result.diverged, strict=True)
    if step is not None
  ]
  if not lost:
    return ""
  return (
    f"note: {len(lost)} of {len(outcome.runs)} runs diverged: "
    f"{'; '.join(lost)}. Lower the learning rate."
  )


def _parameters(outcome: Outcome) -> str:
  """Say what trained."""
  report = outcome.setup.program.partition.report()
  lines = report.splitlines()
  return "\n".join(line for line in lines if not line.startswith(f"{FREEZE} "))


def _proof(outcome: Outcome) -> str:
  """Show that the frozen weights are unchanged, if this was asked for."""
  if outcome.checksum is None or not jax.tree.leaves(outcome.setup.frozen):
    return ""
  now = fingerprint.checksum(outcome.setup.frozen)
  same = "unchanged" if now == outcome.checksum else "CHANGED"
  return (
    f"frozen weights: {same} (sha256 {now[:16]}, before training "
    f"{outcome.checksum[:16]})"
  )


def _neighbours(outcome: Outcome, runs: Runs) -> tuple[str, str]:
  """Read the virtual tokens of every run.

  Args:
    outcome: of the training.
    runs: that were trained.

  Returns:
    A line per run, as wide as the screen, and all of it.
  """
  owners, vectors = {}, {}
  for number, slot in enumerate(outcome.setup.slots):
    noun = noun_of(type(outcome.setup.tuners[slot.run]))
    name = slot.name(outcome.runs[slot.run].name)
    for stack, values in load.vectors(runs, number).items():
      title = f"{stack} {noun} {name}".rstrip()
      owners[title], vectors[title] = (slot.run, stack), values
  if not vectors:
    return "", ""
  vocabulary = outcome.vocabulary
  readings = interpret.read(
    vectors,
    quantized.embedding_table(outcome.model.params),
    min(vocabulary.size, outcome.model.config.vocab_size),
  )

  def piece(token: int) -> str:
    return vocabulary.pieces([token])[0]

  width = max(map(len, vectors))
  screen = shutil.get_terminal_size((_WIDTH, 0)).columns
  lines = ["nearest tokens: mean cosine (of random vectors), by position"]
  sections = []
  for title, reading in readings.items():
    labels = _label_ids(outcome, *owners[title])
    line = f"{title:<{width}}  {interpret.line(*reading, piece)}"
    lines.append(text.shortened(line, screen))
    sections.append(f"{title}\n{interpret.report(*reading, piece, labels)}")
  return "\n".join(lines), "\n\n".join(sections)


def _label_ids(outcome: Outcome, run: int, stack: str) -> list[int]:
  """List the tokens of the words for classes: as given, or the task's own."""
  init = getattr(outcome.setup.tuners[run], f"{stack}_init", None)
  labels = getattr(init, "labels", None)
  vocabulary = outcome.vocabulary
  words = labels or task_words(outcome.runs[run].task)
  ids = {i for word in words for i in vocabulary.encode(word)}
  # A piece that only separates words is not part of a label.
  return sorted(i for i in ids if vocabulary.pieces([i])[0].strip("\u2581"))


_TUNED = (
  "note: no export, because the model was tuned too. Use MODEL_DIR or a "
  "bundle: these have both."
)


class _Exports(NamedTuple):
  """What was exported.

  Attributes:
    lines: that say where, for the screen.
    notes: that say what is not there, each once.
    whole: every path and note.
  """

  lines: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  whole: str = ""


def _export(
  outcome: Outcome, runs: Runs, steps: Sequence[int], folder: pathlib.Path
) -> _Exports:
  """Export every run, and say where."""
  if jax.process_index():
    return _Exports()
  if outcome.setup.program.tunes_model:
    # With the original model, a delta would give other answers.
    return _Exports(notes=(_TUNED,), whole=_TUNED)
  root = folder / model_dir.EXPORTS
  lines, remarks = [], []
  counts: collections.Counter[str] = collections.Counter()
  export.clear(root)  # where older versions put a run that was alone
  for number, slot in enumerate(outcome.setup.slots):
    run = outcome.runs[slot.run]
    name = slot.name(run.name) or run.task
    target = files.below(root, name, "A run's name")
    origin = export.Origin(
      outcome.setup.tuners[slot.run],
      slot.condition or run.task,
      steps[slot.run],
      outcome.model.fingerprint,
      outcome.model.base_model,
      same_vocabulary.mark(outcome.vocabulary),
      (_kept(outcome)[slot.run] or {}).get("metrics", {}),
      templated.has_soft(slot.condition or run.task),
    )
    done = export.export(runs, number, target, origin, outcome.model.config)
    remarks += [f"note, {target}: {note}" for note in done.notes]
    lines += [f"{origin.noun}: {path}" for path in done.paths]
    counts.update(done.notes)
  shown = lines
  count = len(outcome.setup.slots)
  if count > 1:
    shown = [f"exports of {count} runs: {root}"]
  return _Exports(
    tuple(shown),
    tuple(f"note: {_of_runs(n)}{note}" for note, n in counts.items()),
    "\n".join([*lines, *remarks]),
  )


def _of_runs(count: int) -> str:
  """Say for how many runs a note holds, if there are several."""
  return f"{count} runs: " if count > 1 else ""
