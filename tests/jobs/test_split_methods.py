"""A method's parameters are split by their logical axes, as the model's are."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prompt_tuning.checkpoints import bundle
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import axes, tree
from prompt_tuning.core.delta import Delta, LowRank
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import abstract_setup, setup
from prompt_tuning.jobs.settings import Dataset, MeshShape
from prompt_tuning.jobs.train_job import from_settings
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.train import state
from prompt_tuning.train.optimizers import Adafactor, Optax
from prompt_tuning.tuners.method import Method
from prompt_tuning.tuners.prompt import Prompt

TASK, LENGTHS = "taskless_super_glue_rte_v102", {"inputs": 5, "targets": 5}
VOCABULARY, ROWS = 64, 8
MODEL = t5_config.get(
  "t5_1_1_tiny",
  vocab_size=VOCABULARY,
  emb_dim=16,
  num_heads=4,
  head_dim=4,
  mlp_dim=32,
  dtype="float32",
  dropout_rate=0.0,
)
PROMPT = functools.partial(Prompt, encoder_length=2)


class Mixed(Method):
  """An update of the queries, and factors in the decoder's MLP."""

  from_model = (
    *("num_encoder_layers", "num_decoder_layers"),
    *("emb_dim", "num_heads", "head_dim", "mlp_dim"),
  )
  num_encoder_layers: int
  num_decoder_layers: int
  emb_dim: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  rank: int = 4

  @nn.compact
  def __call__(self, inputs):
    del inputs
    encoder, decoder = self.num_encoder_layers, self.num_decoder_layers
    joined = self.num_heads * self.head_dim

    def param(name, init, axes, *shape):
      return self.param(name, nn.with_logical_partitioning(init, axes), shape)

    normal, ones = nn.initializers.normal(0.02), nn.initializers.ones
    a = param(
      *("a", normal, ("layers", "embed", "lora_rank")),
      *(encoder, self.emb_dim, self.rank),
    )
    b = param(
      *("b", normal, ("layers", "lora_rank", "joined_kv")),
      *(encoder, self.rank, joined),
    )
    factor = param("factor", ones, ("layers", "mlp"), decoder, self.mlp_dim)
    return Delta(
      lowrank={"enc_self/query": LowRank(a, b)},
      scale={"dec_mlp/hidden": factor},
    )


# Tuner, rules in front of the standard ones -> leaf -> which of its dimensions
# (the run's first) the mesh's axes split.
CASES = {
  "prompt": (
    PROMPT,
    [("prompt_embed", "model")],
    {"encoder/prompt/prompt/prompt": (None, None, "model")},
  ),
  "runs": (
    PROMPT,
    [("run", "data"), ("prompt_embed", "model")],
    {"encoder/prompt/prompt/prompt": ("data", None, "model")},
  ),
  "rank": (
    Mixed,
    [("lora_rank", "model")],
    {
      "a": (None, None, None, "model"),
      "b": (None, None, "model"),
      "factor": (None, None, "model"),
    },
  ),
  "kernels": (
    Mixed,
    [("embed", "data")],
    {
      "a": (None, None, "data"),  # no rule names the rank
      "b": (None, None, None, "model"),
      "factor": (None, None, "model"),
    },
  ),
}


def make_job(tuner, mesh_rules=(), **changes):
  settings = {
    "model_dir": "unused",
    "model": MODEL,
    "initial_checkpoint_path": None,
    "dataset": Dataset(TASK, LENGTHS, batch_size=ROWS // 2, batching="fixed"),
    "relative_steps": 1,
    "tuner": tuner,
    "learning_rates": 1e-2,
    "seeds": (0, 1),
    "mesh": MeshShape(2, 4, (*mesh_rules, *axes.STANDARD_RULES)),
  }
  return from_settings(**settings | changes)


@pytest.fixture(scope="module")
def built(random_params):
  """Set a job up on the mesh of 2 x 4, or without one."""

  def build(job, mesh):
    target = axes.restore_target(
      network.abstract_params(MODEL),
      network.logical_axes(MODEL),
      mesh,
      job.source.mesh.rules,
    )
    params = jax.tree.map(
      lambda array, leaf: jax.device_put(
        array, leaf.sharding or jax.devices()[0]
      ),
      random_params(MODEL),
      target,
    )
    vocabulary = types.SimpleNamespace(encode=None)
    methods = setup.initialise(
      job.experiment, Backbone(MODEL, params, 0, ""), vocabulary, mesh
    )
    return setup.build(
      job.experiment, params, methods, 0, mesh, job.source.mesh.rules
    )

  return build


def make_batch(step):
  """Rows of both runs, with two virtual tokens in front."""
  rng = np.random.default_rng(step)
  ids = rng.integers(2, VOCABULARY, (ROWS, 5)).astype(np.int32)
  names = ("encoder_input", "decoder_input", "decoder_target")
  batch = {f"{name}_tokens": ids for name in names}
  virtual = np.tile(VOCABULARY + np.arange(2, dtype=np.int32), (ROWS, 1))
  runs = np.arange(ROWS, dtype=np.int32) % 2
  return batch | {
    "encoder_input_tokens": np.concatenate([virtual, ids], axis=1),
    "run_ids": runs,
  }


def without_virtual(batch):
  ids = batch["encoder_input_tokens"]
  return batch | {"encoder_input_tokens": ids[:, 2:]}


def batches(job, mesh):
  """Three batches on the devices."""
  shard = axes.batch_sharder(mesh, job.source.mesh.rules)
  suited = dict if job.experiment.tuner is PROMPT else without_virtual
  return [shard(suited(make_batch(step))) for step in range(3)]


def advance(job, made, mesh):
  """Take three steps: (the jitted step, the last state)."""
  step, last = jax.jit(made.program.step), made.state
  for batch in batches(job, mesh):
    last, _ = step(last, made.frozen, batch)
  return step, last


def spec(leaf):
  return tuple(leaf.sharding.spec)


@pytest.fixture(scope="module", params=CASES)
def case(request, built):
  tuner, rules, specs = CASES[request.param]
  job = make_job(tuner, rules, optimizer=Optax("adamw"))
  mesh = axes.make_mesh(2, 4)
  made = built(job, mesh)
  step, last = advance(job, made, mesh)
  return types.SimpleNamespace(
    job=job, mesh=mesh, specs=specs, made=made, step=step, last=last
  )


def test_every_device_has_its_part(case):
  """Of what trains and of the optimizer's moments, before and after steps."""
  for now in (case.made.state, case.last):
    flat = tree.flatten(now.trainable["tuner"])
    assert {path: spec(leaf) for path, leaf in flat.items()} == case.specs
    moments = [
      (name, array)
      for name, array in state.resume_arrays(now).items()
      if array.ndim > 1 and name.startswith("optimizer/")
    ]
    assert len(moments) == 2 * len(flat)
    for path, leaf in flat.items():
      ways = [case.mesh.shape[axis] for axis in spec(leaf) if axis]
      size = leaf.size // np.prod(ways)
      own = [array for name, array in moments if name.endswith(path)]
      for array in (leaf, *own):
        assert len(array.addressable_shards) == 8
        assert {s.data.size for s in array.addressable_shards} == {size}


def test_the_compiled_step_leaves_them_there(case):
  batch = batches(case.job, case.mesh)[0]
  compiled = case.step.lower(case.last, case.made.frozen, batch).compile()
  inputs, _ = compiled.input_shardings
  outputs, _ = compiled.output_shardings
  for now in (inputs[0], outputs):
    jax.tree.map(lambda got, leaf: _check_equivalent(got, leaf), now, case.last)
  assert case.step._cache_size() == 1


def _check_equivalent(got, leaf):
  assert got.is_equivalent_to(leaf.sharding, leaf.ndim)


def test_it_trains_as_one_device_does(case, built, tolerance):
  _, alone = advance(case.job, built(case.job, None), None)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance["same"]),
    case.last,
    alone,
  )
  before = tree.flatten(case.made.state.trainable)
  for path, leaf in tree.flatten(case.last.trainable).items():
    assert np.all(np.any(np.asarray(leaf != before[path]), axis=(1, 2))), path


def test_its_description_is_the_same(case):
  described = abstract_setup.describe(
    case.job.experiment, case.job.source, case.mesh
  )
  assert jax.tree.map(_layout, described.state) == jax.tree.map(
    _layout, case.made.state
  )


def _layout(leaf):
  return leaf.shape, leaf.dtype, leaf.sharding


def write(folder, now):
  bundle.write(
    folder,
    bundle.Bundle(
      {"run": {}, "step": 3},
      bundle.to_host(tree.flatten(now.trainable)),
      bundle.to_host(state.resume_arrays(now)),
    ),
  )
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_is_what_one_device_writes(case, tmp_path):
  one = jax.tree.map(
    lambda leaf: jax.device_put(np.asarray(leaf), jax.devices()[0]), case.last
  )
  ours = write(tmp_path / "split", case.last)
  assert len(ours) > 2
  assert ours == write(tmp_path / "one", one)


def test_a_run_resumes_in_its_parts(case, tmp_path):
  """And goes on as if nothing had happened, bit for bit."""
  write(tmp_path / "bundle", case.last)
  saved = bundle.read(tmp_path / "bundle")
  resumed = state.from_arrays(case.made.state, saved.trainable, saved.resume)
  jax.tree.map(
    lambda ours, theirs: _check_equivalent(theirs.sharding, ours),
    resumed,
    case.last,
  )
  batch = batches(case.job, case.mesh)[0]
  ours, _ = case.step(resumed, case.made.frozen, batch)
  theirs, _ = case.step(case.last, case.made.frozen, batch)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  assert case.step._cache_size() == 1


class Numbers:
  """A vocabulary of numbers."""

  def encode_batch(self, texts):
    return [[int(word) for word in text.split()] for text in texts]

  def decode(self, ids):
    return " ".join(map(str, ids))


def test_it_decodes_as_one_device_does(case, built, tolerance):
  alone = built(case.job, None)
  values = jax.tree.map(np.asarray, case.last.trainable)
  answers = []
  for made, trainable, mesh in (
    (case.made, case.last.trainable, case.mesh),
    (alone, values, None),
  ):
    params = made.program.partition.merge(trainable, made.frozen)
    runs = Runs(made.program.produce(params["tuner"], None), made.placements)
    predictor = Predictor(
      MODEL, params["model"], Numbers(), runs=runs, mesh=mesh
    )
    asked = predictor.encode(["5 6 7", "8 9", "10 11 12", "3 4"], [0, 1, 1, 0])
    answers.append(predictor.predict(asked, length=4))
  for ours, theirs in zip(*answers, strict=True):
    assert ours.text == theirs.text
    np.testing.assert_allclose(ours.score, theirs.score, **tolerance["same"])


def test_held_out_losses_equal_those_of_one_device(case, built, tolerance):
  alone = built(case.job, None)
  ours = jax.jit(case.made.program.losses)(
    case.last.trainable, case.made.frozen, batches(case.job, case.mesh)[0]
  )
  theirs = alone.program.losses(
    jax.tree.map(jnp.asarray, jax.device_get(case.last.trainable)),
    alone.frozen,
    batches(case.job, None)[0],
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance["same"]),
    ours,
    theirs,
  )


@pytest.mark.parametrize("rules", ["STANDARD_RULES", "FULLY_SHARDED_RULES"])
def test_a_prompt_is_on_every_device_by_default(built, rules):
  """And the step is lowered as if nobody asked for its axes."""
  mesh = axes.make_mesh(2, 4)
  job = make_job(PROMPT, mesh=MeshShape(2, 4, getattr(axes, rules)))
  made = built(job, mesh)
  assert {leaf.sharding for leaf in jax.tree.leaves(made.state)} == {
    axes.everywhere(mesh)
  }
  plain = dataclasses.replace(
    made.program,
    shardings=jax.tree.map(lambda _: axes.everywhere(mesh), made.state),
  )
  batch = batches(job, mesh)[0]
  texts = [
    jax.jit(program.step).lower(made.state, made.frozen, batch).as_text()
    for program in (made.program, plain)
  ]
  assert texts[0] == texts[1]


def test_adafactors_rows_and_columns_are_everywhere(built, tolerance):
  mesh = axes.make_mesh(2, 4)
  job = make_job(
    Mixed,
    [("lora_rank", "model")],
    optimizer=Adafactor(min_dim_size_to_factor=4),
  )
  made = built(job, mesh)
  rows = [
    array
    for name, array in state.resume_arrays(made.state).items()
    if ("/v_row/" in name or "/v_col/" in name) and array.size > 2
  ]
  assert rows
  assert all(array.sharding.is_fully_replicated for array in rows)
  _, last = advance(job, made, mesh)
  _, alone = advance(job, built(job, None), None)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance["same"]),
    last,
    alone,
  )


def test_a_dimension_that_ways_cannot_share_is_refused(built):
  tuner = functools.partial(Mixed, rank=6)
  job = make_job(tuner, [("lora_rank", "model")])
  with pytest.raises(ValueError, match="evenly") as error:
    built(job, axes.make_mesh(2, 4))
  with pytest.raises(
    abstract_setup.MeshError, match="dimension of 6 cannot be split 4"
  ):
    abstract_setup.describe(job.experiment, job.source, axes.make_mesh(2, 4))
  assert (
    "a: a dimension of 6 cannot be split 4 ways over 'model', by the rule "
    "('lora_rank', 'model')" in str(error.value)
  )


@pytest.mark.parametrize(
  ("tuner", "rules", "says"),
  [
    (PROMPT, [(".*", "freeze")], "nothing would train"),
    (
      PROMPT,
      [("tuner/.*", "freeze"), ("model/.*", "train")],
      "every parameter of the tuning method",
    ),
    (None, [("model/.*", "freeze")], "nothing would train"),
  ],
)
def test_rules_that_train_nothing_are_refused(built, tuner, rules, says):
  job = make_job(tuner, rules=rules)
  with pytest.raises(ValueError, match=says) as error:
    built(job, None)
  assert "train.rules" in str(error.value)
