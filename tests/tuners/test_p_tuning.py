"""P-tuning: its networks against torch's, and its adapters in PEFT."""

import copy

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import peft
from prompt_tuning.jobs import identity, load
from prompt_tuning.tuners.method import Inputs
from prompt_tuning.tuners.p_tuning import PTuning
from tests.tuners import peft_twins

LENGTH, WIDTH, HIDDEN = 5, 12, 7


def encoder_of(method):
  """PEFT's network of the same settings; it calls the MLP's three `Linear`s."""
  lib = pytest.importorskip("peft", reason="parity needs the test extra")
  from peft.tuners.p_tuning import PromptEncoder

  config = lib.PromptEncoderConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=method.length,
    token_dim=method.emb_dim,
    num_transformer_submodules=1,
    encoder_reparameterization_type=method.network.upper(),
    encoder_hidden_size=method.hidden,
    encoder_num_layers=method.layers,
    encoder_dropout=0.0,
  )
  return PromptEncoder(config).eval()


def copy_lstm(lstm, params):
  """Give torch's LSTM the numbers of flax's cells."""
  import torch

  for layer in range(lstm.num_layers):
    for suffix, way in (("", "forward_rnn"), ("_reverse", "backward_rnn")):
      cell = params[f"lstm_{layer}"][way]["cell"]
      numbers = {
        "weight_ih": [cell[f"i{gate}"]["kernel"].T for gate in "ifgo"],
        "weight_hh": [cell[f"h{gate}"]["kernel"].T for gate in "ifgo"],
        "bias_hh": [cell[f"h{gate}"]["bias"] for gate in "ifgo"],
      }
      numbers["bias_ih"] = [np.zeros_like(b) for b in numbers["bias_hh"]]
      for name, gates in numbers.items():
        own = getattr(lstm, f"{name}_l{layer}{suffix}")
        own.data = torch.tensor(np.concatenate(gates))


@pytest.mark.parity
@pytest.mark.parametrize("network", ["lstm", "mlp"])
def test_the_prompt_is_that_of_pefts_network(network, tolerance):
  method = PTuning(WIDTH, LENGTH, network, HIDDEN, scale=2.0)
  theirs = encoder_of(method)
  import torch

  params = peft_twins.random_params(method)
  numbers = jax.tree.map(np.asarray, params)
  theirs.embedding.weight.data = torch.tensor(numbers["embedding"])
  if network == "lstm":
    copy_lstm(theirs.lstm_head, numbers)
  linear = [m for m in theirs.mlp_head if isinstance(m, torch.nn.Linear)]
  for i, layer in enumerate(linear):
    layer.weight.data = torch.tensor(numbers[f"dense_{i}"]["kernel"].T)
    layer.bias.data = torch.tensor(numbers[f"dense_{i}"]["bias"])
  assert sum(p.numel() for p in theirs.parameters()) == sum(
    a.size for a in jax.tree.leaves(numbers)
  ) + (2 * 2 * 4 * HIDDEN if network == "lstm" else 0)  # torch's second biases
  ours = method.apply({"params": params}, Inputs()).virtual
  expected = theirs(torch.arange(LENGTH)[None])[0].detach().numpy()
  np.testing.assert_allclose(ours, 2 * expected, **tolerance["oracle"])


@pytest.mark.parametrize("network", ["lstm", "mlp"])
def test_only_an_lstm_sees_the_order_of_tokens(network, tolerance):
  method = PTuning(WIDTH, LENGTH, network, HIDDEN)
  params = peft_twins.random_params(method)
  turned = params | {"embedding": params["embedding"][::-1]}
  ours, other = (
    np.asarray(method.apply({"params": p}, Inputs()).virtual)
    for p in (params, turned)
  )
  alike = np.abs(ours - other[::-1]).max() <= tolerance["same"]["atol"]
  assert alike == (network == "mlp")


@pytest.mark.parity
def test_its_adapters_load_in_peft_and_here(tmp_path):
  lib = pytest.importorskip("peft", reason="parity needs the test extra")
  method = PTuning(WIDTH, LENGTH, hidden=HIDDEN)
  delta, _ = peft_twins.made(method, peft_twins.random_params(method))
  folder = tmp_path / "adapter"
  peft.write_adapter(folder, method.to_peft(delta))
  config = lib.PeftConfig.from_pretrained(folder)
  assert isinstance(config, lib.PromptEncoderConfig)
  weights = lib.utils.load_peft_weights(str(folder), device="cpu")
  np.testing.assert_array_equal(weights["prompt_embeddings"], delta.virtual[0])
  loaded = load.load(folder).runs
  np.testing.assert_array_equal(loaded.delta.virtual, delta.virtual)
  assert loaded.placements == (method.placement,)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("network", ["lstm", "mlp"])
def test_adapters_of_peft_load_here(tiny_twins, tmp_path, network):
  lib = pytest.importorskip("peft", reason="parity needs the test extra")
  config = lib.PromptEncoderConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=LENGTH,
    encoder_reparameterization_type=network.upper(),
    encoder_hidden_size=HIDDEN,
    encoder_num_layers=2,
    num_transformer_submodules=1,
  )
  backbone = copy.deepcopy(tiny_twins.torch_model)
  model = lib.get_peft_model(backbone, config).eval()
  model.save_pretrained(tmp_path)
  loaded = load.load(tmp_path)
  expected = model.get_prompt_embedding_to_save("default").numpy()
  assert np.any(expected)
  np.testing.assert_array_equal(loaded.runs.delta.virtual[0], expected)
  (method,) = set(loaded.runs.placements)
  assert method.encoder_prefix == tuple(range(LENGTH))


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"length": 0}, "P_TUNING_LENGTH must be a positive integer; got 0"),
    ({"hidden": 1.5}, "P_TUNING_HIDDEN"),
    ({"layers": 0}, "P_TUNING_LAYERS"),
    ({"scale": 0}, "P_TUNING_SCALE must be a positive number; got 0"),
    ({"network": "lstn"}, "P_TUNING_NETWORK has 'lstn'.*Did you mean 'lstm'"),
  ],
)
def test_refused_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    PTuning(WIDTH, **settings)


def test_a_bundle_from_before_its_scale_is_as_it_was():
  """What says nothing of a scale was trained without one."""
  described = identity.describe_method(PTuning(WIDTH))
  assert "scale" not in described
  assert identity.rebuild(described).scale == 1
  scaled = PTuning(WIDTH, scale=10.0)
  assert identity.rebuild(identity.describe_method(scaled)) == scaled
