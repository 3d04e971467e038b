"""The end of a training run: the best of it scored, exported, explained."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints import bundle, fingerprint
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import files, tree
from prompt_tuning.core.partition import FREEZE
from prompt_tuning.core.types import Array, Params
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.evaluate import Job, Result
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import export, load, run_scores, summary
from prompt_tuning.jobs.comparison import PLAIN, RANDOM
from prompt_tuning.jobs.setup import Setup, task_words
from prompt_tuning.jobs.train_job import Output, Run
from prompt_tuning.models.t5 import quantized
from prompt_tuning.train import logs, loop, optimizers
from prompt_tuning.tuners.method import Method, noun_of

SUMMARY, CURVE, EXPORTS = "summary.txt", "learning_curve.png", "exports"


class Outcome(NamedTuple):
  """A training that has ended.

  Attributes:
    result: how.
    runs: that were trained.
    output: where it was written, and whether controls are wanted.
    model: the backbone.
    setup: program, frozen part, tuners; the first state is gone.
    vocabulary: of the model.
    scorer: evaluates runs; None where nothing is evaluated.
    start_step: of the optimizer.
    mesh: where everything lies.
    checksum: of the frozen part before training, if it was asked for.
  """

  result: loop.Result
  runs: tuple[Run, ...]
  output: Output
  model: Backbone
  setup: Setup
  vocabulary: Vocabulary
  scorer: run_scores.Scorer | None
  start_step: int
  mesh: Mesh | None
  checksum: str | None


def finish(outcome: Outcome) -> str:
  """Score and export the best of every run, and say what came out.

  Args:
    outcome: of a training that has ended.

  Returns:
    The summary, which is also in MODEL_DIR.

  Raises:
    CheckpointError: an export cannot be written.
    OSError: another file cannot.
  """
  steps, trainable = best(outcome)
  folder = pathlib.Path(outcome.output.model_dir)
  sections = []
  if outcome.scorer is not None:
    results = outcome.scorer.results(trainable)
    rows = [*_rows(outcome, steps, results), *_controls(outcome, trainable)]
    sections.append(summary.scores_by_task(rows))
  sections.append(_parameters(outcome))
  if outcome.setup.tuners:
    runs = runs_of(outcome, trainable)
    exported = _export(outcome, runs, steps, folder)
    sections += [_neighbours(outcome, runs), exported]
  names = [run.name for run in outcome.runs]
  if jax.process_index() == 0:
    summary.learning_curve(logs.read(folder), names, folder / CURVE)
  sections.append(f"learning curve: {folder / CURVE}")
  text = "\n\n".join(filter(None, sections))
  if jax.process_index() == 0:
    files.write_text(folder / SUMMARY, text + "\n")
  return text


def best(outcome: Outcome) -> tuple[list[int], Params]:
  """Gather the best of every run, or its last where nothing was scored.

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
  for k, record in enumerate(outcome.result.best):
    of_run = {path: a[k : k + 1] for path, a in last.items()}
    step = last_step
    if record is not None:
      folder = pathlib.Path(outcome.output.model_dir, loop.BEST, f"run_{k}")
      step = record["step"]
      of_run = dict(bundle.read(bundle.step_path(folder, step)).trainable)
    steps.append(step + outcome.start_step)
    params.append(of_run)
  whole = {
    path: optimizers.put_like(np.concatenate([p[path] for p in params]), like)
    for path, like in on_devices.items()
  }
  return steps, tree.unflatten(whole)


def runs_of(outcome: Outcome, trainable: Params) -> Runs:
  """Let the tuning methods make their runs of what was trained."""
  program = outcome.setup.program
  params = program.partition.merge(trainable, outcome.setup.frozen)
  delta = program.produce(params["tuner"], None)
  return Runs(delta, outcome.setup.placements)


def _rows(
  outcome: Outcome, steps: Sequence[int], results: Sequence[Sequence[Result]]
) -> list[summary.Row]:
  return [
    summary.Row(
      run.name or "trained", step, run_scores.summary(of_run).metrics, run.group
    )
    for run, step, of_run in zip(outcome.runs, steps, results, strict=True)
  ]


def _controls(outcome: Outcome, trainable: Params) -> list[summary.Row]:
  """Score the model alone, and with random numbers, on every task.

  The random ones are those of the task's first run, see `Method.control`.
  """
  scorer, tuners = outcome.scorer, outcome.setup.tuners
  if not (outcome.output.controls and scorer and tuners):
    return []
  trained = runs_of(outcome, trainable)
  tasks = [run.task for run in outcome.runs]
  jobs, controls, labels = [], [Runs()], [PLAIN]
  for task, sets in scorer.sets.items():
    jobs += [Job(dataset, run=0) for dataset in sets]
    first = tasks.index(task)
    method = outcome.setup.tuners[first]
    random = random_control(trained, first, method, jax.random.key(first))
    if random is not None:
      jobs += [Job(dataset, run=len(controls)) for dataset in sets]
      controls.append(random)
      labels.append(random_label(method))
  results = scorer.evaluate(join(controls), outcome.model.params, jobs)
  by_label: dict[str, list[Result]] = {}
  for result in results:
    by_label.setdefault(labels[result.job.run], []).append(result)
  return [
    summary.Row(label, None, run_scores.summary(group).metrics, is_control=True)
    for label, group in by_label.items()
  ]


def random_control(
  trained: Runs, run: int, method: Method, key: Array
) -> Runs | None:
  """Replace what one run learned by random numbers of the same norms.

  Args:
    trained: any runs.
    run: number of the run.
    method: of the run.
    key: random key.

  Returns:
    One run; None where the method has no such control.
  """
  one = trained.one(run)
  delta = method.control(one.delta, key)
  return None if delta is None else Runs(delta, one.placements)


def random_label(method: Method) -> str:
  """Return what reports call a method's random control."""
  return f"{RANDOM}{noun_of(type(method))}"


def _parameters(outcome: Outcome) -> str:
  """Say what trained and, where it was asked for, prove what did not."""
  report = outcome.setup.program.partition.report()
  lines = [
    line for line in report.splitlines() if not line.startswith(f"{FREEZE} ")
  ]
  if outcome.checksum is not None:
    now = fingerprint.checksum(outcome.setup.frozen)
    same = "unchanged" if now == outcome.checksum else "CHANGED"
    lines.append(
      f"frozen weights: {same} (sha256 {now[:16]}, before training "
      f"{outcome.checksum[:16]})"
    )
  return "\n".join(lines)


def _neighbours(outcome: Outcome, runs: Runs) -> str:
  """Read the virtual tokens of the first run of every task."""
  vocabulary = outcome.vocabulary
  embeddings = quantized.embedding_table(outcome.model.params)
  tasks = [run.task for run in outcome.runs]
  sections = []
  for task in dict.fromkeys(tasks):
    run = tasks.index(task)
    noun = noun_of(type(outcome.setup.tuners[run]))
    for stack, vectors in load.vectors(runs, run).items():
      labels = _label_ids(outcome, run, stack)
      report = summary.nearest_tokens(
        vectors,
        embeddings,
        lambda i: vocabulary.pieces([i])[0],
        min(vocabulary.size, outcome.model.config.vocab_size),
        labels,
      )
      name = outcome.runs[run].name
      sections.append(f"{stack} {noun} {name}".rstrip() + f"\n{report}")
  return "\n\n".join(sections)


def _label_ids(outcome: Outcome, run: int, stack: str) -> list[int]:
  """List the tokens of the words for classes: as given, or the task's own."""
  init = getattr(outcome.setup.tuners[run], f"{stack}_init", None)
  labels = getattr(init, "labels", None)
  vocabulary = outcome.vocabulary
  words = labels or task_words(outcome.runs[run].task)
  ids = {i for word in words for i in vocabulary.encode(word)}
  # A piece that only separates words is no part of a label.
  return sorted(i for i in ids if vocabulary.pieces([i])[0].strip("\u2581"))


def _export(
  outcome: Outcome, runs: Runs, steps: Sequence[int], folder: pathlib.Path
) -> str:
  """Export every run; say where to."""
  if jax.process_index():
    return ""
  lines = []
  for k, run in enumerate(outcome.runs):
    target = files.below(folder / EXPORTS, run.name, "A run's name")
    origin = export.Origin(
      outcome.setup.tuners[k], run.task, steps[k], outcome.model.fingerprint
    )
    done = export.export(runs, k, target, origin, outcome.model.config)
    lines += [f"{origin.noun}: {path}" for path in done.paths]
    lines += [f"note, {target}: {note}" for note in done.notes]
  return "\n".join(lines)
