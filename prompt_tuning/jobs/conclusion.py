"""The end of a training run: the best prompts scored, exported, explained."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints import bundle, fingerprint
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import files, tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.partition import FREEZE
from prompt_tuning.core.types import Params
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.evaluate import Job, Result
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import export, load, run_scores, summary
from prompt_tuning.jobs.setup import Setup, task_words
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.models.t5 import quantized
from prompt_tuning.train import logs, loop, optimizers
from prompt_tuning.tuners import interpret

SUMMARY, CURVE, EXPORTS = "summary.txt", "learning_curve.png", "exports"
NO_PROMPT, RANDOM_PROMPT = "no prompt", "random prompt"


class Outcome(NamedTuple):
  """A training that has ended.

  Attributes:
    result: how.
    job: what was done.
    model: the backbone.
    parts: program, frozen part, tuners; the first state is gone.
    vocabulary: of the model.
    scorer: evaluates runs; None where nothing is evaluated.
    start_step: of the optimizer.
    mesh: where everything lies.
    checksum: of the frozen part before training, if it was asked for.
  """

  result: loop.Result
  job: TrainJob
  model: Backbone
  parts: Setup
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
  folder = pathlib.Path(outcome.job.model_dir)
  sections = []
  if outcome.scorer is not None:
    results = outcome.scorer.results(trainable)
    rows = [*_rows(outcome, steps, results), *_controls(outcome, trainable)]
    sections.append(summary.scores_by_task(rows))
  sections.append(_parameters(outcome))
  if outcome.parts.tuners:
    runs = runs_of(outcome, trainable)
    sections += [_neighbours(outcome, runs), _export(outcome, runs, folder)]
  names = [run.name for run in outcome.job.runs]
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
  steps, parts = [], []
  for k, record in enumerate(outcome.result.best):
    own = {path: a[k : k + 1] for path, a in last.items()}
    step = last_step
    if record is not None:
      folder = pathlib.Path(outcome.job.model_dir, loop.BEST, f"run_{k}")
      step = record["step"]
      own = dict(bundle.read(bundle.step_path(folder, step)).trainable)
    steps.append(step + outcome.start_step)
    parts.append(own)
  whole = {
    path: optimizers.put_like(np.concatenate([p[path] for p in parts]), like)
    for path, like in on_devices.items()
  }
  return steps, tree.unflatten(whole)


def runs_of(outcome: Outcome, trainable: Params) -> Runs:
  """Let the tuning methods make their runs of what was trained."""
  program, parts = outcome.parts.program, outcome.parts
  params = program.partition.merge(trainable, parts.frozen)
  return Runs(program.produce(params["tuner"], None), parts.placements)


def _rows(
  outcome: Outcome, steps: Sequence[int], results: Sequence[Sequence[Result]]
) -> list[summary.Row]:
  return [
    summary.Row(
      run.name or "trained", step, run_scores.summary(own).metrics, run.group
    )
    for run, step, own in zip(outcome.job.runs, steps, results, strict=True)
  ]


def _controls(outcome: Outcome, trainable: Params) -> list[summary.Row]:
  """Score the model without a prompt, and with a random one, on every task.

  The random prompt has the norms of the task's first run.
  """
  scorer, parts = outcome.scorer, outcome.parts
  if not (outcome.job.controls and scorer and parts.tuners):
    return []
  trained = runs_of(outcome, trainable)
  tasks = [run.task for run in outcome.job.runs]
  jobs, controls, metrics = [], [Runs()], {}
  for task, sets in scorer.sets.items():
    jobs += [Job(dataset, run=0) for dataset in sets]
    random = _random(trained, tasks.index(task))
    if random is not None:
      jobs += [Job(dataset, run=len(controls)) for dataset in sets]
      controls.append(random)
  results = scorer.evaluate(join(controls), outcome.model.params, jobs)
  for what, is_plain in ((NO_PROMPT, True), (RANDOM_PROMPT, False)):
    own = [r for r in results if (r.job.run == 0) == is_plain]
    if own:
      metrics[what] = run_scores.summary(own).metrics
  return [
    summary.Row(what, None, found, is_control=True)
    for what, found in metrics.items()
  ]


def _random(trained: Runs, run: int) -> Runs | None:
  """Replace the vectors of one run by random ones of the same norms."""
  if trained.delta.virtual is None:
    return None
  virtual = trained.delta.virtual[run]
  noise = interpret.random_control(jax.random.key(run), virtual)
  return Runs(Delta(virtual=noise[None]), (trained.placements[run],))


def _parameters(outcome: Outcome) -> str:
  """Say what trained and, where it was asked for, prove what did not."""
  report = outcome.parts.program.partition.report()
  lines = [
    line for line in report.splitlines() if not line.startswith(f"{FREEZE} ")
  ]
  if outcome.checksum is not None:
    now = fingerprint.checksum(outcome.parts.frozen)
    same = "unchanged" if now == outcome.checksum else "CHANGED"
    lines.append(
      f"frozen weights: {same} (sha256 {now[:16]}, before training "
      f"{outcome.checksum[:16]})"
    )
  return "\n".join(lines)


def _neighbours(outcome: Outcome, runs: Runs) -> str:
  """Read the prompts of the first run of every task."""
  vocabulary = outcome.vocabulary
  embeddings = quantized.embedding_table(outcome.model.params)
  tasks = [run.task for run in outcome.job.runs]
  sections = []
  for task in dict.fromkeys(tasks):
    run = tasks.index(task)
    for stack, vectors in load.prompt_vectors(runs, run).items():
      labels = _label_ids(outcome, run, stack)
      report = summary.nearest_tokens(
        vectors,
        embeddings,
        lambda i: vocabulary.pieces([i])[0],
        min(vocabulary.size, outcome.model.config.vocab_size),
        labels,
      )
      name = outcome.job.runs[run].name
      sections.append(f"{stack} prompt {name}".rstrip() + f"\n{report}")
  return "\n\n".join(sections)


def _label_ids(outcome: Outcome, run: int, stack: str) -> list[int]:
  """List the tokens of the words for classes: as given, or the task's own."""
  init = getattr(outcome.parts.tuners[run], f"{stack}_init", None)
  given = getattr(init, "labels", None)
  vocabulary = outcome.vocabulary
  words = given or task_words(outcome.job.runs[run].task)
  ids = {i for word in words for i in vocabulary.encode(word)}
  # A piece that only separates words is no part of a label.
  return sorted(i for i in ids if vocabulary.pieces([i])[0].strip("\u2581"))


def _export(outcome: Outcome, runs: Runs, folder: pathlib.Path) -> str:
  """Export every run; say where to."""
  if jax.process_index():
    return ""
  lines = []
  for k, run in enumerate(outcome.job.runs):
    target = folder / EXPORTS / run.name
    done = export.export(runs, k, target, outcome.model.config)
    lines += [f"prompt: {path}" for path in done.paths]
    lines += [f"note, {target}: {note}" for note in done.notes]
  return "\n".join(lines)
