"""Prompts of several tasks: how the shared part and a task's are combined."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from prompt_tuning.checkpoints import peft
from prompt_tuning.core.adapter import Adapter
from prompt_tuning.jobs import load
from prompt_tuning.tuners import bank
from prompt_tuning.tuners.initializers import InitializerContext, Uniform
from prompt_tuning.tuners.method import Inputs
from prompt_tuning.tuners.multitask_prompt import (
  MPT,
  MultitaskConcat,
  MultitaskFeatures,
  MultitaskProject,
  MultitaskSum,
)
from tests.tuners import peft_twins

H, P, TASKS = 6, 3, ("a", "b")
BASE = {"length": P, "prompt_init": Uniform(0.1, 1.0)}
KINDS = {
  MultitaskSum: {},
  MultitaskConcat: {"task_length": 2},
  MultitaskFeatures: {"task_features": 2},
  MultitaskProject: {},
  MPT: {"rank": 2},
}
# (shared, arrays of one task) -> its prompt, by hand.
EXPECTED = {
  MultitaskSum: lambda s, t: s + t["task_prompts"],
  MultitaskConcat: lambda s, t: np.vstack([s, t["task_prompts"]]),
  MultitaskFeatures: lambda s, t: np.hstack([s, t["task_prompts"]]),
  MultitaskProject: lambda s, t: np.stack(
    [row @ t["task_kernels"] + t["task_biases"] for row in s]
  ),
  MPT: lambda s, t: (
    s
    * sum(
      np.outer(t["task_columns"][:, r], t["task_rows"][r]) for r in range(2)
    )
  ),
}


def made(kind):
  return kind(H, TASKS, **BASE, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_has_the_shared_part_and_its_own(kind, tolerance):
  method = made(kind)
  params = peft_twins.random_params(method)
  shared = np.asarray(params["shared_prompt"])
  for number in range(2):
    own = {
      name: np.asarray(of_tasks[str(number)])
      for name, of_tasks in params.items()
      if name != "shared_prompt"
    }
    prompt = method.apply({"params": params}, Inputs(condition=number)).virtual
    np.testing.assert_allclose(
      prompt, EXPECTED[kind](shared, own), **tolerance["oracle"]
    )
    assert method.placement.encoder_prefix == tuple(range(len(prompt)))


@pytest.mark.parametrize("number", [-1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_no_task_has_is_refused(kind, number):
  """An array would give its last row."""
  method = made(kind)
  params = peft_twins.random_params(method)
  with pytest.raises(
    ValueError, match=f"is {number}, but the method has 2 tasks"
  ):
    method.apply({"params": params}, Inputs(condition=number))


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_start_at_words(kind, tolerance):
  """All but concatenation and features start at one shared prompt."""
  table = jnp.asarray(np.random.default_rng(0).normal(size=(9, H)), jnp.float32)
  settings = {"length": P, **KINDS[kind]}
  method = kind(H, TASKS, **settings)
  context = InitializerContext(embeddings=table)
  variables = meta.unbox(method.init(jax.random.key(0), Inputs(context)))
  first, second = (
    np.asarray(method.apply(variables, Inputs(condition=i)).virtual)
    for i in range(2)
  )
  if kind is not MultitaskFeatures:
    near = np.abs(first[:, None] - np.asarray(table)).max(-1).min(-1)
    np.testing.assert_allclose(near, 0, **tolerance["mean"])
  same = np.array_equal(first, second)
  assert same == (kind in (MultitaskSum, MultitaskProject, MPT))


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_one_bank_may_have_other_tasks(kind):
  methods = [kind(H, (task,), **BASE, **KINDS[kind]) for task in TASKS]
  keys = [jax.random.key(seed) for seed in range(2)]
  made = bank.init_bank(methods, keys, [InitializerContext()] * 2)
  delta = bank.apply_runs(methods, made.params)
  assert delta.virtual.shape[0] == 2


def test_a_product_starts_at_one_whatever_its_rank(tolerance):
  method = made(MPT)
  variables = meta.unbox(method.init(jax.random.key(0), Inputs()))
  shared = variables["params"]["shared_prompt"]
  for number in range(2):
    prompt = method.apply(variables, Inputs(condition=number)).virtual
    np.testing.assert_allclose(prompt, shared, **tolerance["same"])
  # Its rows of other ranks are zero, so their columns must not be.
  assert all(map(np.all, variables["params"]["task_columns"].values()))


@pytest.mark.parity
@pytest.mark.parametrize("rank", [1, 2])
def test_a_product_is_pefts(rank, tolerance):
  lib = pytest.importorskip("peft", reason="parity needs the test extra")
  import torch
  from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding

  config = lib.MultitaskPromptTuningConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=P,
    token_dim=H,
    num_transformer_submodules=1,
    num_tasks=len(TASKS),
    num_ranks=rank,
  )
  theirs = MultitaskPromptEmbedding(config, torch.nn.Embedding(9, H))
  method = MPT(H, TASKS, **BASE, rank=rank)
  params = peft_twins.random_params(method)
  numbers = {
    name: torch.tensor(
      np.stack([a[str(i)] for i in range(len(TASKS))])
      if name[:4] == "task"
      else np.array(a)
    )
    for name, a in params.items()
  }
  theirs.embedding.weight.data = numbers["shared_prompt"]
  theirs.prefix_task_cols.data = numbers["task_columns"]
  theirs.prefix_task_rows.data = numbers["task_rows"]
  indices = torch.arange(P)[None].repeat(2, 1)
  expected = theirs(indices, torch.arange(2)).detach().numpy()
  for number in range(2):
    ours = method.apply({"params": params}, Inputs(condition=number)).virtual
    np.testing.assert_allclose(ours, expected[number], **tolerance["oracle"])


def test_a_tasks_prompt_is_an_adapter(tmp_path):
  method = made(MultitaskConcat)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  peft.write_adapter(tmp_path / "a", method.to_peft(delta))
  loaded = load.load(tmp_path / "a").runs
  np.testing.assert_array_equal(loaded.delta.virtual, delta.virtual)


@pytest.mark.parametrize(
  ("kind", "settings", "message"),
  [
    (MultitaskSum, {"length": 0}, "PROMPT_LENGTH must be a positive integer"),
    (MultitaskConcat, {"task_length": 0}, "TASK_LENGTH must be a positive"),
    (MultitaskFeatures, {"task_features": H}, "TASK_FEATURES is 6, which"),
    (MPT, {"rank": 0}, "MPT_RANK must be a positive integer; got 0"),
  ],
)
def test_refused_settings(kind, settings, message):
  with pytest.raises(ValueError, match=message):
    kind(H, TASKS, **settings)


@pytest.mark.parametrize(("length", "most"), [(2, 2), (H + 3, H)])
def test_a_rank_that_no_prompt_has_is_refused_in_training(length, most):
  MPT(H, TASKS, length, rank=most).check_to_train()
  with pytest.raises(ValueError, match=rf"MPT_RANK is .* above {most}: lower"):
    MPT(H, TASKS, length, rank=most + 1).check_to_train()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("submodules", [1, 2])
def test_adapters_of_peft_are_a_run_for_every_task(
  tiny_twins, tmp_path, tolerance, submodules
):
  lib = pytest.importorskip("peft", reason="parity needs the test extra")
  import torch

  config = lib.MultitaskPromptTuningConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=P,
    num_tasks=3,
    num_ranks=2,
    num_transformer_submodules=submodules,
    prompt_tuning_init="RANDOM",
  )
  backbone = copy.deepcopy(tiny_twins.torch_model)
  model = lib.get_peft_model(backbone, config).eval()
  model.save_pretrained(tmp_path)
  loaded = load.load(tmp_path)
  assert loaded.names == ("task0", "task1", "task2")
  theirs = model.prompt_encoder["default"]
  for number, virtual in enumerate(loaded.runs.delta.virtual):
    with torch.no_grad():
      rows = torch.arange(submodules * P)[None]
      expected = theirs(rows, torch.tensor([number]))[0, :P]
    np.testing.assert_allclose(virtual, expected, **tolerance["oracle"])
  method = loaded.methods[0]
  assert (method.length, method.rank) == (P, 2)
  assert set(loaded.runs.placements) == {method.placement}


def test_an_adapter_of_other_shapes_is_refused():
  arrays = {
    "prompt_embeddings": np.zeros((P, H)),
    "prefix_task_cols": np.zeros((2, P, 1)),
    "prefix_task_rows": np.zeros((2, 1, H + 1)),
  }
  config = {"peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": 2}
  config |= {"num_virtual_tokens": P, "token_dim": H, "num_ranks": 1}
  with pytest.raises(ValueError, match=r"the shapes .*\(3, 6\).*found"):
    MPT.from_peft(Adapter(config, arrays), None)
