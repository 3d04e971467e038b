"""Data of a job: training batches of every run, and evaluation sets."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints import backbone
from prompt_tuning.core.axes import data_shard, row_ways
from prompt_tuning.core.placement import Placement
from prompt_tuning.data import cache, in_context, spec, vocabulary
from prompt_tuning.data.assembly import NumpyBatch
from prompt_tuning.data.cache import TokenCache
from prompt_tuning.data.in_context import InContext
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.calibrated import Calibration
from prompt_tuning.infer.evaluate import EvalSet
from prompt_tuning.jobs import classes, slots
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.jobs.train_job import Run
from prompt_tuning.models.scorers import ClassTable
from prompt_tuning.models.t5 import cost
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.tuners.method import Method

if TYPE_CHECKING:
  import grain


def open_vocabulary(dataset: Dataset, rows: int) -> Vocabulary:
  """Load the vocabulary of a data set, and let token caches use it too.

  Args:
    dataset: names its file.
    rows: of the model's embedding table.

  Returns:
    The vocabulary.

  Raises:
    FileNotFoundError: no such file.
    ValueError: no vocabulary, or none of this model.
  """
  vocabulary.configure(dataset.vocabulary_file)
  opened = vocabulary.load()
  opened.check_fits(rows)
  return opened


def train_batches(
  dataset: Dataset,
  runs: Sequence[Run],
  placements: Sequence[Placement],
  model: T5Config,
  data_dir: str | None,
  mesh: Mesh | None = None,
  methods: Sequence[Method] = (),
) -> "grain.DatasetIterator[NumpyBatch]":
  """Give every run its own examples, in its own order.

  Args:
    dataset: the data set.
    runs: their tasks and seeds.
    placements: where each run's virtual tokens stand.
    model: the backbone.
    data_dir: TFDS's data directory.
    mesh: must be able to split a batch.
    methods: of every run; those with conditions get `task_ids`.

  Returns:
    An iterator over this host's rows; of several runs side by side.

  Raises:
    ValueError: data that is not here, or a batch that devices cannot share.
  """
  # Imported here, because grain is slow to import and only training needs it.
  from prompt_tuning.data.bank import BankBatches
  from prompt_tuning.data.pipeline import Layout, Tokens, TrainBatches

  ways = row_ways(mesh)
  rows = dataset.batch_size * len(runs)
  if rows % ways:
    raise ValueError(
      f"A batch of {rows} rows (BATCH_SIZE {dataset.batch_size} x {len(runs)} "
      f"runs) cannot be split over {ways} data-parallel devices; make "
      "BATCH_SIZE a multiple of them, or choose another mesh."
    )
  tokens = {
    name: load(dataset, name, data_dir) for name in dict.fromkeys(_tasks(runs))
  }
  if dataset.lengths["inputs"] is None:
    stores = [store for parts in tokens.values() for store, _ in parts]
    longest = max(int(np.diff(s.inputs.offsets).max()) for s in stores)
    config = backbone.for_machine(model, mesh)
    cost.warn_of_length(config, rows // ways, longest)
  streams = [
    TrainBatches(
      cast(Sequence[tuple[Tokens, float]], tokens[run.task]),
      dataset.batch_size,
      run.seed,
      layout=Layout(placement, model.vocab_size),
      batching=dataset.batching,
      max_shapes=dataset.max_shapes,
      packed_size=dataset.packed_size,
      shard=data_shard(mesh),
      task_ids=numbers,
    )
    for run, placement, numbers in zip(
      runs, placements, task_ids(dataset, runs, methods), strict=True
    )
  ]
  batches = streams[0] if len(streams) == 1 else BankBatches(streams)
  return iter(batches.prefetch())


def task_ids(
  dataset: Dataset, runs: Sequence[Run], methods: Sequence[Method]
) -> list[tuple[int, ...] | None]:
  """Number the tasks of every run in the order of its method.

  Args:
    dataset: tells the split.
    runs: their tasks or mixtures.
    methods: of every run; none for model tuning.

  Returns:
    For every run the numbers of its mixture's parts; None without conditions.

  Raises:
    ValueError: a part has no condition.
  """
  if not any(method.conditions for method in methods):
    return [None] * len(runs)
  parts = [
    spec.get(run.task).components(_split(dataset, run.task)) for run in runs
  ]
  return [
    slots.numbers_of(method, [task.name for task, _ in of_run])
    for method, of_run in zip(methods, parts, strict=True)
  ]


def peek(batches: "grain.DatasetIterator[NumpyBatch]") -> NumpyBatch:
  """Return the next batch without advancing the iterator."""
  state = batches.get_state()
  batch = next(batches)
  batches.set_state(state)
  return batch


def eval_sets(
  dataset: Dataset,
  name: str,
  data_dir: str | None,
  num_examples: int | None = None,
  classes_of: Callable[[str], ClassTable] | None = None,
  context: InContext | None = None,
  calibration: Calibration | None = None,
) -> list[EvalSet]:
  """Read the labelled examples of a task, or of all tasks of a mixture.

  Args:
    dataset: where and how to read.
    name: of the task or mixture.
    data_dir: TFDS's data directory.
    num_examples: only the first so many of each task; None for all.
    classes_of: name of a task -> its classes; None where nothing scores them.
    context: what stands before every input; None for nothing.
    calibration: says how many texts without labels it needs.

  Returns:
    One set per task.

  Raises:
    ValueError: data that is not here, or has no labels; demonstrations that do
      not fit, or that could be the examples themselves.
  """
  sets = []
  for task, tokens in members(dataset, name, data_dir):
    count = min(len(tokens), num_examples or len(tokens))
    rows = [tokens.inputs[i] for i in range(count)]
    examples = [tokens.example(i) for i in range(count)]
    if context is not None:
      writer = _writer(dataset, task, context, data_dir)
      rows, examples = in_context.write_all(writer, rows, examples)
    # A task whose examples have their own candidates has no classes.
    table = None
    if classes_of is not None and not task.candidates:
      table = classes_of(task.name)
    unlabelled = None
    if table is not None and calibration is not None:
      unlabelled = _unlabelled(dataset, task, data_dir, calibration)
    sets.append(EvalSet(task, rows, examples, table, unlabelled))
  return sets


def _writer(
  dataset: Dataset,
  task: spec.TaskSpec,
  context: InContext,
  data_dir: str | None,
) -> in_context.Writer:
  """Choose a task's demonstrations, and prepare to write them."""
  chosen = []
  if context.shots:
    if in_context.TRAIN not in task.splits:
      raise ValueError(
        f"{task.name} has no split {in_context.TRAIN!r}, but demonstrations "
        "come from it: set SHOTS = 0."
      )
    if _split(dataset, task.name) == in_context.TRAIN:
      raise ValueError(
        f"Demonstrations come from the split {in_context.TRAIN!r}, and so do "
        "the examples to answer: set EVAL_SPLIT to another one, or SHOTS = 0."
      )
    whole = dataclasses.replace(
      dataset, split=in_context.TRAIN, task_feature_lengths=None
    )
    ((tokens, _),) = load(whole, task.name, data_dir)
    answers = [tokens.targets[i].tobytes() for i in range(len(tokens))]
    chosen = [
      (row, tokens.inputs[row], tokens.targets[row])
      for row in in_context.choose(
        answers, context.shots, context.seed, context.balanced
      )
    ]
  limit = dataset.lengths["inputs"]
  return in_context.Writer(context, vocabulary.load(), chosen, limit)


def _unlabelled(
  dataset: Dataset,
  task: spec.TaskSpec,
  data_dir: str | None,
  calibration: Calibration,
) -> list[np.ndarray]:
  """Read inputs of the training split, for the priors of words."""
  if "train" not in task.splits:
    raise ValueError(
      f"{task.name} has no training split, but CALIBRATION needs its texts. "
      "Set CALIBRATION to None, or choose another task."
    )
  folder = dataset.cache_dir or cache.default_cache_dir()
  tokens = cache.load_task(task, "train", dataset.lengths, folder, data_dir)
  return [tokens.inputs[i] for i in calibration.choose(len(tokens)).tolist()]


def sets_by_task(
  settings: EvaluationSettings | None, runs: Sequence[Run], data_dir: str | None
) -> dict[str, list[EvalSet]]:
  """Read the evaluation sets of the runs; empty without evaluation.

  Args:
    settings: of the evaluation.
    runs: their tasks.
    data_dir: TFDS's data directory.

  Returns:
    Task or mixture -> one set per task.
  """
  if settings is None:
    return {}
  classes_of = scored_classes(settings)
  return {
    name: eval_sets(
      settings.dataset,
      name,
      data_dir,
      settings.num_examples,
      classes_of,
      settings.context,
      settings.calibration,
    )
    for name in dict.fromkeys(_tasks(runs))
  }


def scored_classes(
  settings: EvaluationSettings,
) -> Callable[[str], ClassTable] | None:
  """Find the classes of tasks as an evaluation's scorer needs them.

  Args:
    settings: of the evaluation; its vocabulary is open.

  Returns:
    Name of a task -> its classes; None where there is no scorer.
  """
  scorer = settings.scorer
  if scorer is None:
    return None
  encode = vocabulary.load().encode

  def of_task(name: str) -> ClassTable:
    table = classes.of_task(name, settings.label_words, encode)
    scorer.insist_reads(table)
    return table

  return of_task


def members(
  dataset: Dataset, name: str, data_dir: str | None
) -> list[tuple[spec.TaskSpec, TokenCache]]:
  """Read a task, or every task of a mixture that has the split.

  A token cache knows its task under the name without `_examples`, a spec under
  the one that was asked for.

  Args:
    dataset: where and how to read.
    name: of the task or mixture.
    data_dir: TFDS's data directory.

  Returns:
    (task, its tokens) pairs.
  """
  tasks = spec.get(name).components(_split(dataset, name))
  caches = load(dataset, name, data_dir)
  return [
    (task, tokens) for (task, _), (tokens, _) in zip(tasks, caches, strict=True)
  ]


def _tasks(runs: Sequence[Run]) -> list[str]:
  return [run.task for run in runs]


def _split(dataset: Dataset, name: str) -> str:
  return dataset.split or spec.task(name).eval_split


def load(
  dataset: Dataset, name: str, data_dir: str | None
) -> list[tuple[TokenCache, float]]:
  """Open the tokenised examples of a task or mixture, see `cache.load`."""
  return cache.load(
    name,
    _split(dataset, name),
    dataset.lengths,
    dataset.cache_dir or cache.default_cache_dir(),
    data_dir,
  )
