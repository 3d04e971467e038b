"""Every tuning method passes the same checks; each is a row of `METHODS`.

A method has three programs: a bank of two runs; the same with scanned layers on
eight devices; one run alone, on packed rows. Two steps of each are compared, so
that a program serves several checks.
"""

import dataclasses
import functools
import json
import types
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prompt_tuning.checkpoints import bundle, peft
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import algebra, axes, tree
from prompt_tuning.core.delta import Delta, LowRank, Prefix
from prompt_tuning.core.partition import TRAIN
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.data import mixtures
from prompt_tuning.data.assembly import Assembler, ExamplePlaces, one_per_row
from prompt_tuning.data.ragged import from_rows
from prompt_tuning.infer import runs as infer_runs
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import export, identity, load, setup
from prompt_tuning.jobs.settings import Dataset
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.jobs.train_job import Experiment, TunerFactory
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network, site_shapes
from prompt_tuning.train import state
from prompt_tuning.train.mixture import Mixture
from prompt_tuning.train.objectives import WORD_WEIGHTS, CrossEntropy
from prompt_tuning.train.optimizers import ClipByGlobalNorm, Optax
from prompt_tuning.tuners import bank, discovery
from prompt_tuning.tuners.adapters import AdapterTuning
from prompt_tuning.tuners.deep_prompt import DeepPrompt
from prompt_tuning.tuners.hyperformer import HyperFormer, HyperFormerPlusPlus
from prompt_tuning.tuners.ia3 import IA3
from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.know_prompt import KnowPrompt
from prompt_tuning.tuners.lora import LoRA
from prompt_tuning.tuners.method import Inputs, Method, Recipe, settings_of
from prompt_tuning.tuners.multitask_prompt import (
  MPT,
  MultitaskConcat,
  MultitaskFeatures,
  MultitaskProject,
  MultitaskSum,
)
from prompt_tuning.tuners.norms import NormTuning
from prompt_tuning.tuners.p_tuning import PTuning
from prompt_tuning.tuners.prefix import PrefixMLP, PrefixTuning
from prompt_tuning.tuners.prompt import Prompt
from prompt_tuning.tuners.soft_words import SoftWords
from prompt_tuning.tuners.warp import Warp
from prompt_tuning.tuners.wayward import WaywardPrompt
from prompt_tuning.tuners.word_weights import PromptAndWordWeights
from tests import old_peft

# All sizes differ, so that none can stand for another.
MODEL = t5_config.get(
  "t5_1_1_tiny",
  vocab_size=64,
  emb_dim=16,
  num_heads=4,
  head_dim=6,
  mlp_dim=40,
  num_encoder_layers=1,
  num_decoder_layers=2,
  relpos_buckets=16,
  relpos_max_distance=32,
  dropout_rate=0.0,
)
SIZES = ("small", "base", "large", "xl", "xxl")
SEEDS = (0, 1)
EXAMPLES = 4  # of each run, in a batch
LONGEST = (7, 3)  # tokens of an example
SHAPE = (12, 5)  # positions of a row, with room for virtual tokens
WAYS, RULES = (2, 4), axes.STANDARD_RULES  # data, model


class Factors(Method):
  """Factors on two activations, some of which it drops while it trains."""

  from_model: ClassVar[tuple[str, ...]] = ("shape",)
  # Nothing divides by what may be a rounding error, as Adam does.
  recipe: ClassVar[Recipe] = Recipe(
    learning_rate=0.1, optimizer="sgd", settings={"momentum": 0.9}
  )

  shape: ModelShape = ModelShape()
  drop: float = 0.0

  @nn.compact
  def __call__(self, inputs: Inputs) -> Delta:
    shape, zeros = self.shape, nn.initializers.zeros
    encoder = (shape.num_encoder_layers, shape.emb_dim)
    decoder = (shape.num_decoder_layers, shape.mlp_dim)
    split = nn.with_logical_partitioning(zeros, ("layers", "mlp"))
    out = self.param("out", zeros, encoder)
    hidden = self.param("hidden", split, decoder)
    drop = nn.Dropout(self.drop, deterministic=not inputs.train)
    return Delta(
      scale={"enc_self/out": 1 + drop(out), "dec_mlp/hidden": 1 + drop(hidden)}
    )


class WithRows(CrossEntropy):
  """Also among output rows, which then have a gradient, of any texts."""

  reads_rows = True


class Weighed(CrossEntropy):
  """Something of weights of words for every example, packed or not."""

  def __call__(self, outputs, batch):
    sums = super().__call__(outputs, batch)
    weights = jax.nn.softmax(batch[WORD_WEIGHTS])
    first = weights[..., 0].sum(-1)
    return {**sums, "loss": sums["loss"] + sums["sequences"] * first}


class Row(NamedTuple):
  """One method.

  Attributes:
    factory: what TUNER would be.
    count: numbers that it trains, of d_model H, all heads together J, d_ff F,
      and the layers of the encoder E and the decoder D.
    starts_frozen: whether it changes nothing before it is trained; None where
      it changes very little.
    drops: whether it draws random numbers while it trains.
    starts_alike: whether all seeds begin with the same.
    data: task or mixture that it trains on.
    steep: whether its gradients are so large that their rounding is beyond
      what holds of numbers around 1.
    optimizer: where the recipe's would make rounding errors large: Adafactor
      divides by what starts at zero, and by a mean over all of it.
    objective: what is minimised.
  """

  factory: TunerFactory
  count: Callable[[int, int, int, int, int], int]
  starts_frozen: bool | None = False
  drops: bool = False
  starts_alike: bool = False
  data: str = "skill_first"
  steep: bool = False
  optimizer: Any = None
  objective: Any = CrossEntropy()


PAIR = "pair_of_skills"
WORDS = (("no", "never", "none"), ("yes", "sure", "aye"))
# As the recipe, but that nothing is divided by what may be a rounding error.
CLIPPED = ClipByGlobalNorm(Optax("sgd", momentum=0.9), 0.1)
METHODS: dict[str, Row] = {
  "prompt": Row(
    functools.partial(Prompt, encoder_length=3),
    lambda H, J, F, E, D: 3 * H,
  ),
  "prompts around": Row(
    functools.partial(
      Prompt, encoder_length=2, decoder_length=2, encoder_position="after"
    ),
    lambda H, J, F, E, D: 4 * H,
  ),
  "prompts that see little": Row(
    functools.partial(
      Prompt, encoder_length=3, sees="earlier", sees_text=False
    ),
    lambda H, J, F, E, D: 3 * H,
  ),
  "LoRA": Row(
    functools.partial(
      LoRA, rank=2, kernels=("query", "enc_mlp/wi_0", "dec_mlp/wo")
    ),
    lambda H, J, F, E, D: 2 * ((H + J) * (E + 2 * D) + (H + F) * (E + D)),
    starts_frozen=True,
  ),
  "(IA)3": Row(
    IA3,
    lambda H, J, F, E, D: 2 * J * (E + 2 * D) + F * (E + D),
    starts_frozen=True,
  ),
  "prefix tuning": Row(
    functools.partial(PrefixTuning, length=2),
    lambda H, J, F, E, D: 2 * 2 * J * (E + 2 * D),
  ),
  "prefix tuning by an MLP": Row(
    functools.partial(
      PrefixMLP, length=2, sites=("dec_self", "cross"), hidden=4, dropout=0.5
    ),
    lambda H, J, F, E, D: 2 * (2 * H + (H + 1) * 4 + (4 + 1) * D * 2 * J),
    drops=True,
  ),
  "norm tuning": Row(
    NormTuning,
    lambda H, J, F, E, D: (2 * E + 3 * D + 2) * H,
    starts_frozen=True,
  ),
  "adapters": Row(
    functools.partial(AdapterTuning, width=3, sites=("enc_mlp", "cross")),
    lambda H, J, F, E, D: (2 * H * 3 + 3 + H) * (E + D),
    starts_frozen=True,
  ),
  "parallel adapters with norms": Row(
    functools.partial(
      AdapterTuning,
      width=2,
      sites=("dec_self",),
      parallel=True,
      factor=4.0,
      normed=True,
      norms=True,
    ),
    lambda H, J, F, E, D: (
      (2 * H * 2 + 2 + H + 2 * H) * D + (2 * E + 3 * D + 2) * H
    ),
    steep=True,
  ),
  "deep prompts": Row(
    functools.partial(DeepPrompt, encoder_length=2, decoder_length=1),
    lambda H, J, F, E, D: (2 * E + D) * H,
  ),
  "deep prompts that add": Row(
    functools.partial(
      DeepPrompt, encoder_length=0, decoder_length=2, replace=False
    ),
    lambda H, J, F, E, D: 2 * D * H,
  ),
  "P-tuning": Row(
    functools.partial(PTuning, length=3, hidden=5, layers=2),
    lambda H, J, F, E, D: (
      3 * H + 2 * 4 * 5 * (H + 5 + 1 + 10 + 5 + 1) + 11 * 10 + 11 * H
    ),
    steep=True,
    optimizer=CLIPPED,
  ),
  "P-tuning by an MLP": Row(
    functools.partial(PTuning, length=3, network="mlp", hidden=5),
    lambda H, J, F, E, D: 3 * H + (H + 1) * 5 + 6 * 5 + 6 * H,
    steep=True,
    optimizer=CLIPPED,
  ),
  "HyperFormer": Row(
    functools.partial(
      HyperFormer, embedding=3, hidden=5, reduction=8, norms=False
    ),
    lambda H, J, F, E, D: (
      2 * 3 + 20 + 18 + 4 * (2 * H * H // 8 + H // 8 + 3 * H) * 2 * (E + D)
    ),
    starts_frozen=None,
    data=PAIR,
  ),
  "HyperFormer++": Row(
    functools.partial(HyperFormerPlusPlus, embedding=3, hidden=5, reduction=8),
    lambda H, J, F, E, D: (
      2 * 3
      + 3 * (E + D + 4)
      + 2 * (10 * 5 + 18 + 6 + 4 * (2 * H * H // 8 + H // 8 + 3 * H))
      + (2 * E + 3 * D + 2) * H
    ),
    data=PAIR,
  ),
  "multitask prompts by sum": Row(
    functools.partial(MultitaskSum, length=2),
    lambda H, J, F, E, D: 3 * 2 * H,
    data=PAIR,
    optimizer=Optax("sgd", momentum=0.9),
  ),
  "multitask prompts by concatenation": Row(
    functools.partial(MultitaskConcat, length=2, task_length=1),
    lambda H, J, F, E, D: (2 + 2 * 1) * H,
    data=PAIR,
  ),
  "multitask prompts by features": Row(
    functools.partial(MultitaskFeatures, length=2, task_features=4),
    lambda H, J, F, E, D: 2 * (H - 4) + 2 * 2 * 4,
    data=PAIR,
  ),
  "multitask prompts by projection": Row(
    functools.partial(MultitaskProject, length=2),
    lambda H, J, F, E, D: 2 * H + 2 * (H * H + H),
    data=PAIR,
  ),
  "multitask prompt tuning": Row(
    functools.partial(MPT, length=2, rank=2),
    lambda H, J, F, E, D: 2 * H + 2 * 2 * (2 + H),
    data=PAIR,
  ),
  "wayward prompts": Row(
    functools.partial(WaywardPrompt, text="abc", length=1),
    lambda H, J, F, E, D: H,
    starts_alike=True,
  ),
  "soft words": Row(
    functools.partial(SoftWords, length=2, mixture=2),
    lambda H, J, F, E, D: 2 * E * 2 * H + 2,
    objective=Mixture(),
  ),
  "soft words by gradient": Row(
    functools.partial(SoftWords, length=1, mixture=3, weighting="gradient"),
    lambda H, J, F, E, D: 3 * E * H + 3,
    objective=Mixture(),
  ),
  "WARP": Row(
    functools.partial(Warp, before=2, after=1, label_words=("no", "yes")),
    lambda H, J, F, E, D: (3 + 2) * H,
    objective=WithRows(),
  ),
  "prompt and word weights": Row(
    functools.partial(PromptAndWordWeights, encoder_length=2, words=WORDS),
    lambda H, J, F, E, D: 2 * H + 2 * 3,
    objective=Weighed(),
  ),
  # Without a template there are no arguments, and no structure between them.
  "KnowPrompt": Row(
    functools.partial(
      KnowPrompt,
      label_words=("no", "yes", "perhaps"),
      subject_types={"person": 3.0, "city": 1.0},
      object_types=("date",),
      structure=0.0,
    ),
    lambda H, J, F, E, D: (2 + 3) * H,
    starts_alike=True,
    objective=WithRows(),
  ),
  "defined here": Row(
    functools.partial(Factors, drop=0.5),
    lambda H, J, F, E, D: E * H + D * F,
    starts_frozen=True,
    drops=True,
  ),
}


# Methods of the package without a row, and why.
WITHOUT_A_ROW = {
  "KnowPromptTuned": "is KnowPrompt in parameters and delta; another recipe",
  "WordWeights": "is the part of PromptAndWordWeights that is no prompt",
}


def test_every_method_of_the_package_has_a_row():
  in_rows = {type(make_experiment(row).tuners[0]) for row in METHODS.values()}
  left = {
    name
    for name, kind in discovery.methods().items()
    if kind.__module__.startswith("prompt_tuning.") and kind not in in_rows
  }
  assert left == set(WITHOUT_A_ROW)


def encode(text):
  """Give every text a piece, by its length."""
  return [len(text)]


class Text(NamedTuple):
  """Examples as token rows: their inputs and targets."""

  inputs: Any
  targets: Any


def make_text(seed, count):
  rng = np.random.default_rng(seed)

  def rows(longest):
    lengths = rng.integers(1, longest, count)
    return from_rows(
      [np.append(rng.integers(2, MODEL.vocab_size, n), 1) for n in lengths],
      np.uint16,
    )

  return Text(*map(rows, LONGEST))


def assembler(text, placement):
  return Assembler(text.inputs, text.targets, placement, MODEL.vocab_size)


def unpacked(text, placement, runs):
  """Give every example a row; `runs` says whose it is."""
  count = len(runs)
  places = one_per_row(np.arange(count), (count, *SHAPE))
  batch = assembler(text, placement)(places, packed=False)
  return batch | {"run_ids": np.asarray(runs, np.int32)}


def with_tasks(batch, method):
  """Let rows take turns among a method's conditions."""
  if not method.conditions:
    return batch
  rows = np.arange(len(batch["encoder_input_tokens"]), dtype=np.int32)
  return batch | {"task_ids": rows % len(method.conditions)}


def packed(text, placement, examples):
  """Put two examples into every row."""
  write, numbers = assembler(text, placement), np.arange(len(examples))
  second = numbers % 2
  lengths = write.encoder_lengths(), write.decoder_lengths()
  first = np.repeat(examples[::2], 2)
  starts = [second * own[first] for own in lengths]
  shape = (len(examples) // 2, 2 * SHAPE[0], 2 * SHAPE[1])
  places = ExamplePlaces(
    shape, np.asarray(examples), numbers // 2, *starts, segments=second + 1
  )
  return write(places, packed=True)


def make_experiment(row, model=MODEL, seeds=SEEDS):
  dataset = Dataset(row.data, batch_size=EXAMPLES)
  return Experiment(
    model=model,
    dataset=dataset,
    tuner=row.factory,
    seeds=seeds,
    optimizer=row.optimizer,
    objective=row.objective,
  )


class Training(NamedTuple):
  """A program and two steps of it.

  Attributes:
    built: the program, and what it began with.
    step: the program, compiled.
    states: before the first step, and after each.
    sums: of every step.
  """

  built: Setup
  step: Callable[..., Any]
  states: list
  sums: list


def advance(built, step, first, batches):
  states, sums = [first], []
  for batch in batches:
    after, metrics = step(states[-1], built.frozen, batch)
    states.append(after)
    sums.append(metrics.sums)
  return Training(built, step, states, sums)


class Case:
  """The programs of one row, each made when a test asks for it."""

  def __init__(self, name, row, backbones):
    self.name, self.row, self._backbones = name, row, backbones
    self.experiment = make_experiment(row)
    self.method, *_ = self.experiment.tuners
    self.placement = self.method.placement
    count = EXAMPLES * len(SEEDS)
    self.texts = [make_text(step, count) for step in range(2)]

  def initialised(self, seeds):
    experiment = make_experiment(self.row, seeds=seeds)
    backbone = Backbone(MODEL, self._backbones["plain"], 0, "")
    vocabulary = types.SimpleNamespace(encode=encode)
    return experiment, setup.initialise(experiment, backbone, vocabulary, None)

  def build(self, experiment, methods):
    params = self._backbones["plain"]
    return setup.build(experiment, params, methods, 0, None, RULES)

  @functools.cached_property
  def methods(self):
    return self.initialised(SEEDS)[1]

  def batches(self):
    """Make the batches of both steps, an example in every row."""
    runs = np.repeat(np.arange(len(SEEDS)), EXAMPLES)
    return [
      with_tasks(unpacked(text, self.placement, runs), self.method)
      for text in self.texts
    ]

  @functools.cached_property
  def bank(self):
    """Two runs on one device."""
    built = self.build(self.experiment, self.methods)
    step = jax.jit(built.program.step)
    return advance(built, step, built.state, self.batches())

  @functools.cached_property
  def elsewhere(self):
    """The same, with scanned layers on eight devices."""
    mesh, model = axes.make_mesh(*WAYS), self._backbones["scanned"]
    config = dataclasses.replace(MODEL, scan_layers=True)
    experiment = make_experiment(self.row, config)
    built = setup.build(experiment, model, self.methods, 0, mesh, RULES)
    shard = axes.batch_sharder(mesh, RULES)
    batches = map(shard, self.batches())
    return advance(built, jax.jit(built.program.step), built.state, batches)

  @functools.cached_property
  def alone(self):
    """Every run by itself, with packed rows; they share a program."""
    trainings = []
    for run, seed in enumerate(SEEDS):
      built = self.build(*self.initialised((seed,)))
      step = trainings[0].step if trainings else jax.jit(built.program.step)
      examples = run * EXAMPLES + np.arange(EXAMPLES)
      batches = [self.packed(text, examples) for text in self.texts]
      trainings.append(advance(built, step, built.state, batches))
    return trainings

  @functools.cached_property
  def produce(self):
    """(parameters, keys) -> delta, compiled; of any number of runs."""
    return jax.jit(self.bank.built.program.produce)

  @property
  def trained(self):
    """What the bank has learned."""
    return self.bank.states[-1].trainable["tuner"]

  @functools.cached_property
  def runs(self):
    """The same as whoever loads it has it."""
    delta = bank.apply_runs(self.experiment.tuners, self.trained)
    return self.bank.built.runs(delta)

  def packed(self, text, examples):
    """Put two examples of one task into every row."""
    apart = max(1, len(self.method.conditions))
    pairs = np.arange(len(examples)).reshape(-1, 2, apart).swapaxes(1, 2)
    return with_tasks(
      packed(text, self.placement, examples[pairs.reshape(-1)]), self.method
    )


@pytest.fixture(scope="module", autouse=True)
def pair_of_skills(own_tasks):
  """The mixture of methods with conditions."""
  mixtures.declare(PAIR, ("skill_first", "skill_last"))


@pytest.fixture(scope="module")
def backbones(random_params):
  """The frozen model on one device, and scanned on a mesh."""
  params = random_params(MODEL)
  mesh = axes.make_mesh(*WAYS)
  config = dataclasses.replace(MODEL, scan_layers=True)
  target = axes.restore_target(
    network.abstract_params(config),
    network.logical_axes(config),
    mesh,
    RULES,
  )
  scanned = jax.tree.map(
    lambda array, leaf: jax.device_put(array, leaf.sharding),
    stacked(params),
    target,
  )
  return {
    "plain": jax.device_put(params, jax.devices()[0]),
    "scanned": scanned,
  }


def stacked(params):
  """Put the layers of both stacks under one `layers`."""
  model = dict(params)
  for stack in ("encoder", "decoder"):
    layers = [v for k, v in params[stack].items() if k.startswith("layers_")]
    rest = {k: v for k, v in params[stack].items() if k[:7] != "layers_"}
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
    model[stack] = rest | {"layers": together}
  return model


@pytest.fixture(scope="module", params=METHODS)
def case(request, backbones):
  return Case(request.param, METHODS[request.param], backbones)


def assert_close(ours, theirs, tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance["same"]),
    ours,
    theirs,
  )


def assert_close_to_largest(ours, theirs, tolerance):
  """For gradients of hundreds: a sum rounds as its largest terms make it."""

  def close(a, b):
    a, b = np.asarray(a), np.asarray(b)
    if not np.issubdtype(b.dtype, np.floating):
      np.testing.assert_array_equal(a, b)
      return
    largest = max(1.0, np.abs(b).max(initial=0))
    np.testing.assert_allclose(a / largest, b / largest, **tolerance["same"])

  jax.tree.map(close, ours, theirs)


def assert_equal(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def differs(ours, theirs):
  pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  return any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)


# Counts and shapes.


def count(row, model):
  return row.count(
    model.emb_dim,
    model.num_heads * model.head_dim,
    model.mlp_dim,
    model.num_encoder_layers,
    model.num_decoder_layers,
  )


def described(method, model):
  """Describe the parameters and the delta of one run."""
  method = identity.without_initialisers(method)

  def make(table):
    rows = lambda ids: table[jnp.asarray(ids)]  # noqa: E731
    context = InitializerContext(table, tokenize=encode, output_rows=rows)
    inputs = Inputs(context)
    key = jax.random.key(0)
    delta, variables = method.init_with_output(key, inputs)
    return nn.meta.unbox(variables["params"]), delta

  table = jax.ShapeDtypeStruct((model.vocab_size, model.emb_dim), jnp.float32)
  return jax.eval_shape(make, table)


@pytest.mark.parametrize("size", [None, *SIZES])
def test_it_trains_as_many_numbers_as_the_formula_says(case, size):
  model = t5_config.get(f"t5_1_1_{size}") if size else MODEL
  (method, _) = make_experiment(case.row, model).tuners
  params, delta = described(method, model)
  learnt = {k: v for k, v in params.items() if k not in method.constants}
  assert sum(leaf.size for leaf in jax.tree.leaves(learnt)) == count(
    case.row, model
  )
  one = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), delta
  )
  assert site_shapes.check(one, model) == 1


# Training.


def test_only_its_own_numbers_train(case, random_params):
  (built, *_), states = case.bank, case.bank.states
  assert built.program.partition.count(TRAIN) == count(case.row, MODEL)
  before, _, after = (tree.flatten(s.trainable) for s in states)
  assert all(path.startswith("tuner/") for path in after)
  for path in after:
    changed = np.asarray(after[path] != before[path])
    assert changed.reshape(len(SEEDS), -1).any(axis=1).all(), path
  assert_equal(built.frozen["model"], random_params(MODEL))
  kept = state.resume_arrays(states[-1])
  numbers = sum(leaf.size for leaf in after.values())
  assert sum(array.size for array in kept.values()) < 3 * numbers + 20


def test_every_run_begins_as_it_would_alone(case):
  for run, training in enumerate(case.alone):
    own = jax.tree.map(lambda a, run=run: a[run : run + 1], case.methods.params)
    begun = training.states[0].trainable["tuner"]
    assert_equal(begun, {name: own[name] for name in begun})
    constants = training.built.tuners[0].constants
    assert begun.keys() == own.keys() - set(constants)
  first, second = case.alone
  if not case.row.starts_frozen and not case.row.starts_alike:
    assert differs(first.states[0].trainable, second.states[0].trainable)


def test_a_bank_equals_its_runs_alone_with_packed_rows(case, tolerance):
  for run, training in enumerate(case.alone):
    own = jax.tree.map(lambda a, run=run: a[run : run + 1], case.trained)
    assert_close(training.states[-1].trainable["tuner"], own, tolerance)
    for ours, bank_sums in zip(training.sums, case.bank.sums, strict=True):
      theirs = {name: sums[run : run + 1] for name, sums in bank_sums.items()}
      # Rows of other lengths have other numbers of padding.
      for name in ours.keys() - {"target_tokens", "sequences", "exact"}:
        assert_close(ours[name], theirs[name], tolerance)


def test_eight_devices_and_scanned_layers_equal_one(case, tolerance):
  ours, theirs = case.elsewhere, case.bank
  assert len(jax.tree.leaves(ours.built.frozen)[0].sharding.device_set) == 8
  assert_close(ours.sums, theirs.sums, tolerance)
  close = assert_close_to_largest if case.row.steep else assert_close
  close(ours.states[-1], theirs.states[-1], tolerance)


def test_it_resumes_to_the_bit(case):
  fresh, saved, last = case.bank.states
  resumed = state.from_arrays(
    fresh,
    bundle.to_host(tree.flatten(saved.trainable)),
    bundle.to_host(state.resume_arrays(saved)),
  )
  again = advance(case.bank.built, case.bank.step, resumed, case.batches()[1:])
  assert case.bank.step._cache_size() == 1
  assert_equal(again.states[-1], last)
  assert_equal(again.sums[-1], case.bank.sums[-1])


# Dropping inside the method.


def test_it_draws_by_the_key_and_not_in_evaluation(case):
  keys = jax.random.split(jax.random.key(7), len(SEEDS))
  draw = functools.partial(case.produce, case.trained)
  drawn = draw(keys)
  assert_equal(drawn, draw(keys))
  assert differs(drawn, draw(keys[::-1])) == case.row.drops
  assert differs(drawn, draw(None)) == case.row.drops


def test_a_run_draws_in_a_bank_as_alone(case):
  keys = jax.random.split(jax.random.key(7), len(SEEDS))
  own = jax.tree.map(lambda a: a[1:], case.trained)
  drawn = case.produce(case.trained, keys)
  second = slice(len(case.runs) // len(SEEDS), None)
  assert_equal(case.produce(own, keys[1:]), algebra.select(drawn, second))


# Use.


def normal(*shape):
  rng = np.random.default_rng(list(shape))
  return jnp.asarray(rng.normal(size=(1, *shape)) / 4, jnp.float32)


def other():
  """Make a run that fills many sites, in sizes that no method has."""
  H, N, D = MODEL.emb_dim, MODEL.num_heads, MODEL.head_dim
  encoder, decoder = MODEL.num_encoder_layers, MODEL.num_decoder_layers
  layers = {"enc_self": encoder, "dec_self": decoder, "cross": decoder}
  prefix = {
    site: Prefix(normal(L, 1, N, D), -normal(L, 1, N, D))
    for site, L in layers.items()
  }
  here = jnp.ones((1, encoder), bool)
  prefix["enc_self"] = prefix["enc_self"]._replace(positioned=here)
  pair = (normal(encoder, H, 3), normal(encoder, 3, N * D))
  delta = Delta(
    virtual=normal(2, H),
    prefix=prefix,
    lowrank={"enc_self/query": LowRank(*pair)},
    scale={"dec_mlp/hidden": 1 + normal(decoder, MODEL.mlp_dim)},
  )
  return Runs(delta, (Placement(encoder_prefix=(0, 1)),))


@pytest.fixture(scope="module")
def forward(backbones):
  """(rows, delta) -> logits of the frozen model."""
  apply = jax.jit(network.T5(MODEL).apply)
  return lambda batch, delta: apply(
    {"params": backbones["plain"]}, batch, delta
  )


def test_a_mixed_batch_equals_its_rows_alone(case, forward, tolerance):
  """Rows of both runs, of another method, and of the model alone."""
  text = make_text(5, 2)
  parts = [(case.runs, (0, 1)), (other(), (0, 0)), (Runs(), (0, 0))]
  rows = [unpacked(text, runs.placements[0], ids) for runs, ids in parts]
  alone = [
    forward(batch, runs.delta)
    for batch, (runs, _) in zip(rows, parts, strict=True)
  ]
  mixed = {name: np.concatenate([b[name] for b in rows]) for name in rows[0]}
  others = len(case.runs)
  ids = [0, 1, others, others, others + 1, others + 1]
  mixed["run_ids"] = np.asarray(ids, np.int32)
  joined = infer_runs.join([runs for runs, _ in parts])
  logits = forward(mixed, joined.delta)
  # What has no output rows of its own cannot answer by any.
  missing = [logits.shape[-1] - own.shape[-1] for own in alone]
  alone = [
    np.pad(own, [(0, 0), (0, 0), (0, more)], constant_values=-np.inf)
    for own, more in zip(alone, missing, strict=True)
  ]
  # Behind its end, a row may say anything.
  real = mixed["decoder_loss_weights"] > 0
  assert_close(logits[real], np.concatenate(alone)[real], tolerance)
  assert differs(alone[0][real[:2]], alone[2][real[4:]])


TEN = (
  *("prompt", "LoRA", "(IA)3", "prefix tuning", "prefix tuning by an MLP"),
  *("norm tuning", "adapters", "deep prompts", "P-tuning", "HyperFormer++"),
)


def test_ten_methods_in_one_batch_equal_each_alone(forward, tolerance):
  """One row under each, in one program."""
  text, rng = make_text(5, 2), np.random.default_rng(0)
  parts, rows, alone = [], [], []
  for name in TEN:
    tuners = make_experiment(METHODS[name]).tuners
    params = jax.tree.map(  # so that none is the frozen model
      lambda a: rng.normal(size=(len(SEEDS), *a.shape)).astype(np.float32) / 4,
      described(tuners[0], MODEL)[0],
    )
    delta = bank.apply_runs(tuners, params)
    slots = len(SEEDS) * max(1, len(tuners[0].conditions))
    runs = Runs(delta, (tuners[0].placement,) * slots)
    batch = unpacked(text, tuners[0].placement, (0, 1))
    parts.append(runs)
    rows.append(batch)
    alone.append(forward(batch, runs.delta)[:1])
  mixed = {
    name: np.concatenate([batch[name][:1] for batch in rows])
    for name in rows[0]
  }
  starts = np.cumsum([0, *map(len, parts)])[:-1]
  mixed["run_ids"] = starts.astype(np.int32)
  logits = forward(mixed, infer_runs.join(parts).delta)
  real = mixed["decoder_loss_weights"] > 0
  assert_close(logits[real], np.concatenate(alone)[real], tolerance)
  plain = unpacked(text, Placement(), (0, 0))
  theirs = forward(plain, Delta())[:1]
  for ours in alone:
    assert np.abs(ours - theirs)[real[:1]].max() > 1e-3


def test_some_start_at_the_frozen_model(case, forward, tolerance):
  """Others are not at it even before they are trained."""
  text = make_text(5, 2)
  fresh = case.produce(case.methods.params, None)
  batch = unpacked(text, case.placement, (0, 1))
  real = batch["decoder_loss_weights"] > 0
  ours = forward(batch, fresh)[real]
  plain = unpacked(text, Placement(), (0, 0))
  theirs = forward(plain, Delta())[plain["decoder_loss_weights"] > 0]
  if case.row.starts_frozen:
    assert_close(ours, theirs, tolerance)
  else:
    least = 1e-6 if case.row.starts_frozen is None else 1e-3
    pieces = ours[:, : theirs.shape[1]]
    assert np.abs(pieces - theirs).max() > least


def test_a_bundle_has_the_method_and_its_delta(case, tmp_path):
  tuners = case.bank.built.tuners
  manifest = {
    "step": 2,
    "run": {
      "runs": [{"name": f"seed{seed}"} for seed in SEEDS],
      "tuners": [identity.describe_method(tuner) for tuner in tuners],
      "backbone": {"fingerprint": "abc"},
      "start_step": 0,
    },
  }
  trainable = tree.flatten({"tuner": case.trained})
  arrays = bundle.to_host(trainable)
  # Whatever of it does not train, lies beside the rest.
  *_, last = arrays
  fixed = {last: arrays.pop(last)} if len(arrays) > 1 else {}
  saved = bundle.Bundle(manifest, arrays, fixed=fixed)
  bundle.write(tmp_path / "bundle", saved)
  loaded = load.load(tmp_path / "bundle")
  made_by = [settings_of(tuners[slot.run]) for slot in case.bank.built.slots]
  assert list(map(settings_of, loaded.methods)) == made_by
  assert loaded.runs.placements == case.runs.placements
  assert loaded.runs.answers == case.runs.answers
  assert_equal(loaded.runs.delta, case.runs.delta)


def test_an_export_has_its_delta_without_it(case, tmp_path):
  origin = export.Origin(case.method, "a_task", 2, "abc")
  done = export.export(case.runs, 1, tmp_path, origin, MODEL)
  assert tmp_path / "delta" in done.paths
  loaded = load.load(tmp_path)
  assert_equal(loaded.runs.delta, case.runs.one(1).delta)
  assert loaded.runs.placements == (case.placement,)
  assert loaded.runs.answers_of(0) == case.method.answers
  assert settings_of(loaded.methods[0]) == settings_of(case.method)
  about = json.loads((tmp_path / "delta" / "delta.json").read_text())["about"]
  assert about["method"] == identity.describe_method(case.method)
  file = tmp_path / "peft" / peft.CONFIG
  if file in [path / peft.CONFIG for path in done.paths]:
    config = json.loads(file.read_text())
    assert config.keys() <= old_peft.KNOWN[config["peft_type"]]
