"""From a job and a frozen model to the step and its state."""

import contextlib
import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, use_abstract_mesh

from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import axes, partition, tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.partition import FREEZE, TRAIN, Partition, Rule
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import Array, Batch, Params
from prompt_tuning.data import sentinel_targets, spec, templated
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import classes, feed, load, slots
from prompt_tuning.jobs.identity import placements_of
from prompt_tuning.jobs.slots import Slot
from prompt_tuning.jobs.train_job import Experiment, Run
from prompt_tuning.models.scorers import ClassTable, WordsLike
from prompt_tuning.models.t5 import network, quantized, site_shapes
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train import optimizers, row_groups, state
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.mixture import Mixture
from prompt_tuning.train.objectives import Choice, Objective, Setting
from prompt_tuning.train.state import TrainState
from prompt_tuning.train.step import Produce, StepProgram
from prompt_tuning.tuners import bank, initializers
from prompt_tuning.tuners.bank import Bank
from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.method import Method, name_of

logger = logging.getLogger(__name__)

_WORDS_OF_UNLABELLED = {
  "record": initializers.RECORD_LABELS,
  "wsc": initializers.WSC_LABELS,
}


class Setup(NamedTuple):
  """Everything that a step needs; arrays, or descriptions of them.

  Attributes:
    program: the parts of the step.
    state: the state before the first step.
    frozen: the frozen part of the parameters.
    tuners: the tuning method of every run; empty for model tuning.
    placements: places of the virtual tokens of every run.
    slots: the run and condition of every row of the delta.
  """

  program: StepProgram
  state: TrainState
  frozen: Params
  tuners: tuple[Method, ...]
  placements: tuple[Placement, ...]
  slots: tuple[Slot, ...]

  def runs(self, delta: Delta) -> Runs:
    """Make runs from a delta, with their virtual tokens in place."""
    if self.tuners:
      return slots.runs(delta, self.tuners, self.slots)
    return Runs(delta, self.placements)


def initialise(
  experiment: Experiment,
  backbone: Backbone,
  vocabulary: Vocabulary,
  mesh: Mesh | None,
) -> Bank | None:
  """Make the initial values of every run's tuning method.

  Args:
    experiment: the experiment.
    backbone: the frozen model; initialisers read its embedding table.
    vocabulary: that of the model.
    mesh: the mesh of the model.

  Returns:
    The methods' parameters; None for model tuning.

  Raises:
    ValueError: the initialisers or the runs do not fit.
  """
  if not experiment.tuners:
    return None
  table = _readable(quantized.embedding_table(backbone.params), mesh)
  warn = functools.cache(logger.warning)  # equal runs warn once
  head = functools.partial(_output_rows, backbone, mesh)
  contexts = [
    dataclasses.replace(
      _context(run, table, vocabulary, warn), output_rows=head
    )
    for run in experiment.runs
  ]
  keys = [jax.random.key(run.seed) for run in experiment.runs]
  made = bank.init_bank(experiment.tuners, keys, contexts)
  if experiment.after is not None:
    learned = load.all_parameters(experiment.after)
    return made._replace(params=_continued(made.params, learned))
  if experiment.start_from is None:
    return made
  params = _started(made.params, experiment.tuners, experiment.start_from)
  return made._replace(params=params)


def _continued(params: Params, learned: Mapping[str, Any]) -> Params:
  """Start the runs with the parameters of the stage before."""
  ours = {path: array.shape for path, array in tree.flatten(params).items()}
  theirs = {path: array.shape for path, array in learned.items()}
  if ours != theirs:
    raise ValueError(
      f"The stage before was trained for other runs: it has {theirs}, but "
      f"these runs have {ours}. Choose another MODEL_DIR."
    )
  return tree.unflatten({p: jnp.asarray(a) for p, a in learned.items()})


def _insist_on_words(source: Method, method: Method, path: str) -> None:
  """Insist that learned numbers of label words are for the same words."""
  for kind in ("answers", "weighed_words"):
    theirs = [*map(str, getattr(source, kind))]
    ours = [*map(str, getattr(method, kind))] if theirs else []
    if theirs != ours:
      raise ValueError(
        f"START_FROM {path} has learned numbers for the label words "
        f"{', '.join(theirs):.120}, but the label words here are "
        f"{', '.join(ours) or 'none':.120}. Choose a training on the same "
        "LABEL_WORDS."
      )


def _started(params: Params, methods: Sequence[Method], path: str) -> Params:
  """Start the runs with the parameters of another run."""
  theirs, source = load.parameters(path)
  conditions = source.conditions if source else ()
  for method in methods:  # parameters of conditions are named by number
    if source is not None:
      _insist_on_words(source, method, path)
    if method.conditions[: len(conditions)] != conditions:
      raise ValueError(
        f"START_FROM {path} was tuned for {', '.join(conditions)}, but the "
        f"tasks here are {', '.join(method.conditions)}. List the same tasks "
        "first, in that order, and new ones after them."
      )
  ours = tree.flatten(params)
  misfits = [
    f"{name}: {[*array.shape[1:]]} there, "
    f"{[*ours[name].shape[1:]] if name in ours else 'nothing'} here"
    for name, array in theirs.items()
    if name not in ours or array.shape[1:] != ours[name].shape[1:]
  ]
  if misfits:
    raise ValueError(
      f"START_FROM {path} holds a method with other parameters:\n  "
      + "\n  ".join(misfits)
    )
  new = sorted(ours.keys() - theirs.keys())
  if new:
    logger.info(
      "These parameters are not in %s and start with their initial values: %s.",
      path,
      ", ".join(new),
    )
  taken = {
    name: jnp.broadcast_to(array, ours[name].shape)
    for name, array in theirs.items()
  }
  return tree.unflatten({**ours, **taken})


def build(
  experiment: Experiment,
  model: Params,
  methods: Bank | None,
  start_step: int,
  mesh: Mesh | None,
  rules: axes.AxisRules,
  program: StepProgram | None = None,
) -> Setup:
  """Separate trained from frozen parameters, and build the step.

  From arrays it makes the initial state of training. From descriptions, which
  include the model's shardings, it makes a description of that state. See
  `core.axes.compute`.

  Args:
    experiment: what is trained.
    model: the model's parameters.
    methods: the tuning methods', see `initialise`; None for model tuning.
    start_step: that of the optimizer.
    mesh: where everything lies; None for the default device.
    rules: logical axis -> mesh axis.
    program: of this experiment, if it is built already.

  Returns:
    The program and its state.

  Raises:
    ValueError: the rules do not fit, train nothing, or train what is
      quantised; the mesh cannot split the method, or its delta does not fit
      the model.
  """
  whole: dict[str, Params] = {"model": model}
  if methods is not None:
    to = (
      axes.everywhere(mesh)
      if mesh is None
      else axes.method_shardings(methods.params, methods.axes, mesh, rules)
    )
    # A prompt that is sampled from a sharded table would be sharded like the
    # table.
    whole["tuner"] = axes.put(methods.params, to)
  if program is None:
    program = _program(experiment, whole, start_step, mesh, rules)
  trainable, frozen = program.partition.split(whole)
  if "model" in trainable:
    copies = _copies(trainable["model"], len(experiment.runs))
    trainable = {**trainable, "model": copies}
  shardings = state.shardings(trainable, program.optimizer, mesh)
  if mesh is not None:
    program = dataclasses.replace(program, shardings=shardings)
  seeds = [run.seed for run in experiment.runs]
  return Setup(
    program,
    state.create(trainable, program.optimizer, seeds, shardings),
    frozen,
    experiment.tuners,
    placements_of(experiment.tuners, len(seeds)),
    slots.of_methods(experiment.tuners, len(seeds)),
  )


def _program(
  experiment: Experiment,
  whole: Mapping[str, Params],
  start_step: int,
  mesh: Mesh | None,
  rules: axes.AxisRules,
) -> StepProgram:
  """Build the step for {"model": ..., "tuner": those of all runs}."""
  shapes = _shapes_of_one_run(whole)
  modes = partition.build(
    (*_constants(experiment.tuners), *experiment.rules), shapes
  )
  _insist_on_training(modes, "tuner" in whole)
  quantized.refuse_training(
    (leaf.path, leaf.dtype) for leaf in modes.leaves if leaf.mode == TRAIN
  )
  rows = [
    {f"tuner/{path}": count for path, count in tuner.rows.items()}
    for tuner in experiment.tuners
  ]
  optimizer = optimizers.bank_optimizer(
    experiment.run_optimizer,
    [run.learning_rate for run in experiment.runs],
    start_step=start_step,
    schedule=experiment.schedule,
    rows=rows,
  )
  produce = _produce(experiment.tuners)
  if "tuner" in whole:
    _insist_on_fitting(experiment, produce, whole["tuner"])
  placements = placements_of(experiment.tuners, len(experiment.runs))
  start_length = 1 + max(placement.decoder_length for placement in placements)
  objective = objective_of(experiment, start_length)
  return StepProgram(
    forward=_forward(experiment.model, mesh, rules),
    produce=produce,
    partition=modes,
    objective=objective,
    optimizer=optimizer,
    num_runs=len(experiment.runs),
    num_microbatches=experiment.num_microbatches,
    dropout=experiment.model.dropout_rate > 0,
    conditions=tuple(len(tuner.conditions) for tuner in experiment.tuners),
    sizes=row_groups.sizes(modes.split(shapes)[0], rows) if any(rows) else None,
    components=_components(experiment, objective),
    extra=bank.extra_of(experiment.tuners),
    penalty=bank.penalty_of(experiment.tuners),
  )


def _components(experiment: Experiment, objective: Objective) -> int:
  """Count every run's components, and insist that the objective mixes them."""
  counts = {method.components for method in experiment.tuners} or {1}
  (count, *others) = counts
  if others:
    raise ValueError(
      f"The runs of a bank are mixtures of {sorted(counts)} components; "
      "expected equal numbers. Train them apart."
    )
  if count > 1 and not isinstance(objective, Mixture):
    raise ValueError(
      f"{name_of(type(experiment.tuners[0]))} is a mixture of {count} "
      f"prompts, but the objective {type(objective).__name__} does not train "
      "mixtures: set OBJECTIVE to @objectives.Mixture()."
    )
  return count


def objective_of(experiment: Experiment, start_length: int = 1) -> Objective:
  """Build the objective of all runs.

  Args:
    experiment: what is trained.
    start_length: see `objectives.Setting`; by default that without virtual
      tokens.

  Returns:
    The objective.

  Raises:
    ValueError: the runs lack something that it needs, or do not share it.
  """

  def of_task(name: str, given: WordsLike) -> ClassTable:
    rows = experiment.model.vocab_size
    vocabulary = feed.open_vocabulary(experiment.dataset, rows)
    return classes.of_task(name, given, vocabulary.encode)

  choice = experiment.run_objective
  tuners = experiment.tuners
  if isinstance(choice, Classes) and tuners:
    for run, method in zip(experiment.runs, tuners, strict=True):
      scored = (run.task, choice.label_words, choice.scorer)
      classes.insist_on_weighed(*scored, method.weighed_words)
      classes.insist_on_answers(*scored, method.answers, in_training=True)
  return choice.for_runs(
    Setting(
      [functools.partial(of_task, run.task) for run in experiment.runs],
      experiment.model.vocab_size,
      start_length,
    )
  )


def _constants(methods: Sequence[Method]) -> list[Rule]:
  """Freeze the arrays of methods that do not train."""
  names = {name: None for method in methods for name in type(method).constants}
  return [
    Rule(f"tuner/{re.escape(name)}(/.*)?", FREEZE, optional=True)
    for name in names
  ]


def _insist_on_training(modes: Partition, has_method: bool) -> None:
  """Refuse rules under which nothing would train."""
  if not modes.count(TRAIN):
    raise ValueError(
      "The rules freeze every parameter: nothing would train. Change "
      "`train.rules`; %partition.TUNER_ONLY trains the tuning method, "
      "%partition.EVERYTHING the model."
    )
  if has_method and not modes.trains("tuner"):
    raise ValueError(
      "The rules freeze every parameter of the tuning method (`tuner/...`). "
      "Change `train.rules`, such as to %partition.TUNER_ONLY, or set "
      "TUNER = None to train the model without a method."
    )


def _insist_on_fitting(
  experiment: Experiment, produce: Produce, params: Params
) -> None:
  """Refuse a method whose delta does not fit the model, or changes nothing."""
  names = dict.fromkeys(name_of(type(m)) for m in experiment.tuners)
  refused = (
    f"{' and '.join(names)} cannot train this model; change TUNER, or its "
    "settings."
  )
  keys = jax.eval_shape(
    lambda: jax.random.split(jax.random.key(0), len(experiment.tuners))
  )
  for dropout_keys in (keys, None):  # while it trains, and in evaluation
    delta = jax.eval_shape(produce, params, dropout_keys)
    if not jax.tree.leaves(delta):
      raise ValueError(
        f"{refused} Its delta is empty, so the model would not change."
      )
    try:
      site_shapes.check(delta, experiment.model)
    except ValueError as error:
      raise ValueError(f"{refused} {error}") from error
    if delta.head_rows is not None:
      _insist_on_reading_rows(experiment.run_objective, " and ".join(names))


def _insist_on_reading_rows(choice: Choice, method: str) -> None:
  """Refuse objectives and scorers that do not read learned output rows."""
  if getattr(choice, "reads_rows", True):
    return
  scorer = getattr(choice, "scorer", None)
  what, reader = ("objective", choice) if scorer is None else ("scorer", scorer)
  raise ValueError(
    f"TUNER ({method}) learns an output row for every class, but the {what} "
    f"{type(reader).__name__} reads only pieces of the vocabulary: set "
    "OBJECTIVE to @objectives.Classes() and SCORER to @scorers.OutputRows(), "
    "or leave OBJECTIVE to the method."
  )


def _context(
  run: Run, table: Array, vocabulary: Vocabulary, warn: Callable[[str], None]
) -> InitializerContext:
  """Give a run's initialiser the model's table and the task's words."""
  return InitializerContext(
    embeddings=table,
    tokenize=vocabulary.encode,
    label_words=task_words(run.task),
    soft_pieces=_soft_pieces(run.task, vocabulary),
    load_prompt=load.encoder_vectors,
    warn=warn,
  )


def _soft_pieces(name: str, vocabulary: Vocabulary) -> tuple[int | None, ...]:
  """Return what the soft tokens of a task's template start as.

  Of a mixture, those of the first task whose template has some.
  """
  for task, _ in spec.get(name).components("train"):
    renderer = templated.renderer(task, vocabulary)
    if renderer and renderer.soft:
      return renderer.soft
  return ()


def task_words(name: str) -> tuple[str, ...]:
  """List the words that stand for a task's classes.

  Args:
    name: of a task or mixture.

  Returns:
    The label words of every task that trains, each once; for tasks without a
    label set, the words that the paper (section 3.2) puts in their place.
  """
  words: dict[str, None] = {}
  for task, _ in spec.get(name).components("train"):
    words |= dict.fromkeys(
      templated.first_words(task)
      or tuple(map(sentinel_targets.without, task.label_words))
      or _WORDS_OF_UNLABELLED.get(task.dataset, ())
    )
  return tuple(words)


def _shapes_of_one_run(whole: Mapping[str, Params]) -> Params:
  """Describe the parameters as one run sees them, for counts and rules."""

  def one(leaf: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

  shapes: dict[str, Params] = {"model": whole["model"]}
  if "tuner" in whole:
    shapes["tuner"] = jax.tree.map(one, whole["tuner"])
  return shapes


def _copies(model: Params, count: int) -> Params:
  """Give every run its own copy, sharded like the original."""

  def copies(model: Params) -> Params:
    return jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), model
    )

  to = jax.tree.map(lambda leaf: axes.stacked(leaf.sharding), model)
  copied: Params = axes.compute(copies, to, model)
  return copied


def _forward(
  config: T5Config, mesh: Mesh | None, rules: axes.AxisRules
) -> Callable[..., Outputs]:
  """Apply the model to rows that stay on the devices that have them.

  Where weights are split over those devices too, a layer's are gathered when
  it runs. Left to itself, the compiler gathers the rows instead, and adds up
  every product's parts. It is left to itself where devices cannot share rows
  evenly, as those of small microbatches: XLA was seen to compute wrong losses
  of rows that it had to pad.
  """
  model: Any = network.T5(config)
  # The data axis shards rows first, then features.
  known = rules if mesh is None else axes.rules_on(mesh, rules)
  ordered = sorted(known, key=lambda rule: rule[0] != "batch")

  def forward(
    params: Params, batch: Batch, delta: Delta, keys: Array | None
  ) -> Outputs:
    rows = len(batch["encoder_input_tokens"])
    with contextlib.ExitStack() as around:
      if mesh is not None and rows % axes.row_ways(mesh) == 0:
        around.enter_context(use_abstract_mesh(mesh.abstract_mesh))
        around.enter_context(nn.logical_axis_rules(ordered))
      outputs: Outputs = model.apply(
        {"params": params}, batch, delta, keys, method="outputs"
      )
    return outputs

  return forward


def _produce(tuners: Sequence[Method]) -> Produce:
  def produce(params: Params, keys: Array | None) -> Delta:
    if not tuners:
      return Delta()
    return bank.apply_runs(tuners, params, keys)

  return produce


def _output_rows(
  backbone: Backbone, mesh: Mesh | None, ids: Sequence[int]
) -> Array:
  """Take the rows of some pieces out of the output head."""
  rows = network.output_rows(backbone.config, backbone.params, ids)
  return _readable(rows, mesh)


def _readable(table: Array, mesh: Mesh | None) -> Array:
  """Gather the whole table on every host."""
  if mesh is None or table.is_fully_addressable:
    return table
  return jax.jit(lambda x: x, out_shardings=axes.everywhere(mesh))(table)
