"""A frozen T5 of each family in torch and here, to hold adapters against."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core import algebra
from prompt_tuning.core.delta import MLP_SITES, Delta, LowRank, Prefix
from prompt_tuning.models.t5 import network
from prompt_tuning.tuners.method import Inputs
from tests.hugging_face_twins import Twins, ragged_batch

RANK, LENGTH = 3, 4
FAMILIES = ("t5_1_1", "t5_1_0", "mt5")


@dataclasses.dataclass(frozen=True)
class Family:
  """One random model, twice, and what it computes.

  Attributes:
    twins: the model.
    backbone: in torch, of the family's own class.
  """

  twins: Twins
  backbone: object

  @property
  def shape(self):
    return self.twins.config.shape

  def compute(self, delta):
    """Return logits of real targets, and the mean loss's gradient."""
    whole = fill(delta, self.shape)
    encoder, targets = ragged_batch(self.twins.config)
    batch = {
      "encoder_input_tokens": encoder,
      "decoder_input_tokens": network.shift_right(jnp.asarray(targets)),
      "decoder_target_tokens": targets,
    }
    (_, logits), gradient = _program(self.twins.config)(
      whole, self.twins.params, batch
    )
    return np.asarray(logits)[targets != 0], gradient

  def theirs(self, model):
    """The same logits of a torch model; its parameters get gradients."""
    import torch

    encoder, targets = ragged_batch(self.twins.config)
    ids, labels = (torch.as_tensor(a).long() for a in (encoder, targets))
    logits = model(
      input_ids=ids,
      attention_mask=(ids != 0).long(),
      decoder_input_ids=torch.nn.functional.pad(labels[:, :-1], (1, 0)),
    ).logits
    loss = torch.nn.functional.cross_entropy(
      logits.flatten(0, 1), labels.flatten(), ignore_index=0
    )
    loss.backward()
    return logits.detach().numpy()[targets != 0]

  def loaded(self, folder):
    """Load an adapter onto a copy of the backbone, with PEFT."""
    import peft

    model = peft.PeftModel.from_pretrained(
      copy.deepcopy(self.backbone), folder
    ).eval()
    # PEFT does not load virtual tokens as what trains.
    for name, parameter in model.named_parameters():
      own = ("lora_", "ia3_", "prompt_encoder")
      parameter.requires_grad_(any(word in name for word in own))
    return model

  def adapted(self, config):
    """Make a random adapter with PEFT: nothing in it is zero."""
    import peft
    import torch

    model = peft.get_peft_model(copy.deepcopy(self.backbone), config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
      for parameter in model.parameters():
        if parameter.requires_grad:
          parameter.add_(torch.randn_like(parameter) / 5)
    return model


@functools.cache
def _program(config):
  """One compilation for all adapters of a model's shape."""
  model = network.T5(config)

  def loss(delta, params, batch):
    logits = model.apply({"params": params}, batch, delta)
    score = network.score(logits, batch["decoder_target_tokens"])
    tokens = jnp.sum(batch["decoder_target_tokens"] != 0)
    return -jnp.sum(score) / tokens.astype(jnp.float32), logits

  return jax.jit(jax.value_and_grad(loss, has_aux=True, allow_int=True))


def fill(delta, shape):
  """Fill all sites of these tests, so that they share one program.

  Where a delta has none there is the identity; a prefix is masked.
  """
  lowrank, scale = {}, {}
  layers = shape.num_decoder_layers
  zeros = jnp.zeros((1, layers, LENGTH, shape.num_heads, shape.head_dim))
  positioned = jnp.ones((1, layers), bool)
  prefix = delta.prefix.get("dec_self", Prefix(zeros, zeros, None, positioned))
  mask = jnp.full((1, layers, LENGTH), bool(delta.prefix))
  for site, (inputs, outputs) in shape.kernels().items():
    layers = shape.num_layers(site)
    a, b = (1, layers, inputs, RANK), (1, layers, RANK, outputs)
    lowrank[site] = LowRank(jnp.zeros(a), jnp.zeros(b))
    scale[site] = jnp.ones((1, layers, outputs))
  for site in MLP_SITES:
    layers = shape.num_layers(site)
    scale[f"{site}/hidden"] = jnp.ones((1, layers, shape.mlp_dim))
  return Delta(
    lowrank=lowrank | dict(delta.lowrank),
    scale=scale | dict(delta.scale),
    prefix={"dec_self": prefix._replace(mask=mask)},
  )


def random_params(method, seed=0):
  """Draw parameters of a method; none are zero."""
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  rng = np.random.default_rng(seed)
  unboxed = jax.tree.map(lambda leaf: leaf, network.nn.meta.unbox(shapes))
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 5, jnp.float32),
    unboxed["params"],
  )


def made(method, params):
  """The delta of one run, with its run axis, as a function of parameters."""

  def apply(params):
    delta = method.apply({"params": params}, Inputs())
    return jax.tree.map(lambda a: a[None], delta)

  return jax.vjp(apply, params)


def restrict(gradient, delta):
  """Take the sites of a delta out of a larger one's gradient."""
  named = algebra.named_leaves(gradient)
  return algebra.from_named_leaves(
    {name: named[name] for name in algebra.named_leaves(delta)}
  )


@pytest.fixture(scope="session", params=FAMILIES)
def family(request):
  pytest.importorskip("torch", reason="parity needs the test extra")
  pytest.importorskip("peft", reason="parity needs the test extra")
  name = "tied_twins" if request.param == "t5_1_0" else "tiny_twins"
  twins = request.getfixturevalue(name)
  return Family(twins, backbone_of(twins, request.param))


def backbone_of(twins, name):
  """The torch model of some twins, in the class of a family."""
  model = twins.torch_model
  if name != "mt5":
    return model
  import transformers

  config = transformers.MT5Config(**model.config.to_dict())
  other = transformers.MT5ForConditionalGeneration(config).eval()
  other.config.tie_word_embeddings = model.config.tie_word_embeddings
  if hasattr(config, "scale_decoder_outputs"):
    other.config.scale_decoder_outputs = model.config.scale_decoder_outputs
  other.lm_head.weight = copy.deepcopy(model.lm_head.weight)
  other.load_state_dict(model.state_dict())
  return other
