"""Parity with Hugging Face T5 (torch) and PEFT, float32, random weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import Delta
from prompt_tuning.machine import kernels
from prompt_tuning.models.t5 import decoding, network

pytestmark = pytest.mark.parity


def _jax_batch(encoder, targets):
  targets = jnp.asarray(targets)
  return {
    "encoder_input_tokens": jnp.asarray(encoder),
    "decoder_input_tokens": network.shift_right(targets),
    "decoder_target_tokens": targets,
  }


def _torch_logits(twins, encoder, targets, **kwargs):
  import torch

  labels = torch.as_tensor(np.asarray(targets)).long()
  decoder_input = torch.nn.functional.pad(labels[:, :-1], (1, 0))
  if encoder is not None:
    ids = torch.as_tensor(encoder).long()
    kwargs |= {"input_ids": ids, "attention_mask": (ids != 0).long()}
  return twins.torch_model(decoder_input_ids=decoder_input, **kwargs).logits


@pytest.fixture(
  params=["tiny_twins", "quick_twins", "tied_twins", "small_twins"]
)
def twins(request):
  return request.getfixturevalue(request.param)


def _check_on_targets(ours, theirs, targets, tolerance):
  # Logits at padded targets attend to padding in one and not in the other.
  mask = np.asarray(targets) != 0
  np.testing.assert_allclose(
    np.asarray(ours)[mask], np.asarray(theirs)[mask], **tolerance["parity"]
  )


def test_logits_equal_hugging_face(twins, make_batch, tolerance):
  import torch

  encoder, targets = make_batch(twins.config, inputs=140)
  model = network.T5(twins.config)
  ours = jax.jit(model.apply)(
    {"params": twins.params}, _jax_batch(encoder, targets)
  )
  with torch.no_grad():
    theirs = _torch_logits(twins, encoder, targets)
  _check_on_targets(ours, theirs, targets, tolerance)


def test_scores_equal_hugging_face(twins, make_batch, tolerance):
  import torch

  encoder, targets = make_batch(twins.config, seed=1)
  model = network.T5(twins.config)
  batch = _jax_batch(encoder, targets)
  ours = network.score(
    jax.jit(model.apply)({"params": twins.params}, batch),
    batch["decoder_target_tokens"],
  )
  with torch.no_grad():
    log_probs = _torch_logits(twins, encoder, targets).log_softmax(-1)
  index = torch.as_tensor(targets).long()
  picked = log_probs.gather(-1, index[..., None])[..., 0]
  theirs = (picked * (index != 0)).sum(-1)
  np.testing.assert_allclose(ours, theirs, **tolerance["parity"])


def _prompt(config, length, seed=3):
  rng = np.random.default_rng(seed)
  shape = (length, config.emb_dim)
  return rng.normal(scale=0.5, size=shape).astype(np.float32)


def _with_prompt(encoder, config, length):
  rows = np.arange(
    config.vocab_size, config.vocab_size + length, dtype=np.int32
  )
  return np.concatenate([np.tile(rows, (len(encoder), 1)), encoder], axis=1)


@pytest.mark.parametrize(
  "options", [{}, kernels.OWN_KERNELS], ids=["", "own_kernels"]
)
def test_prompt_loss_and_gradient_equal_hugging_face(
  twins, options, make_batch, tolerance
):
  """Cross-entropy and its gradient with respect to a prepended prompt."""
  import torch

  encoder, targets = make_batch(twins.config, seed=2)
  prompt = _prompt(twins.config, 6)
  model = network.T5(twins.config)
  batch = _jax_batch(_with_prompt(encoder, twins.config, 6), targets)

  def loss_fn(prompt):
    delta = Delta(virtual=prompt[None])
    logits = model.apply({"params": twins.params}, batch, delta)
    return -jnp.sum(network.score(logits, batch["decoder_target_tokens"]))

  compiled = jax.jit(
    jax.value_and_grad(loss_fn), compiler_options=dict(options)
  )
  loss, gradient = compiled(jnp.asarray(prompt))

  ids = torch.as_tensor(encoder).long()
  leaf = torch.tensor(prompt, requires_grad=True)
  embedded = twins.torch_model.shared(ids)
  rows = leaf[None].expand(len(encoder), -1, -1)
  mask = torch.cat([torch.ones(len(encoder), 6).long(), (ids != 0).long()], 1)
  logits = _torch_logits(
    twins,
    None,
    targets,
    inputs_embeds=torch.cat([rows, embedded], 1),
    attention_mask=mask,
  )
  labels = torch.as_tensor(targets).long()
  their_loss = torch.nn.functional.cross_entropy(
    logits.flatten(0, 1), labels.flatten(), ignore_index=0, reduction="sum"
  )
  their_loss.backward()
  np.testing.assert_allclose(loss, their_loss.detach(), **tolerance["parity"])
  np.testing.assert_allclose(gradient, leaf.grad, **tolerance["parity"])


def test_greedy_outputs_equal_hugging_face(twins, make_batch):
  import torch

  encoder, _ = make_batch(twins.config, seed=4, rows=4)
  generate = functools.partial(
    decoding.generate,
    network.T5(twins.config),
    length=8,
    method=decoding.Greedy(),
  )
  batch = {"encoder_input_tokens": jnp.asarray(encoder)}
  ours = jax.jit(generate)(twins.params, batch)
  ids = torch.as_tensor(encoder).long()
  theirs = twins.torch_model.generate(
    input_ids=ids,
    attention_mask=(ids != 0).long(),
    max_new_tokens=8,
    min_new_tokens=0,
    do_sample=False,
    num_beams=1,
  )[:, 1:].numpy()
  padded = np.zeros((4, 8), int)
  padded[:, : theirs.shape[1]] = theirs
  np.testing.assert_array_equal(ours.tokens[:, 0], padded)


@pytest.mark.filterwarnings(
  "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
def test_prompt_equals_peft(tiny_twins, make_batch, tolerance):
  """Logits, loss, gradient, scores and greedy outputs of a PEFT prompt."""
  import copy

  peft = pytest.importorskip("peft", reason="parity needs the test extra")
  import torch

  config = tiny_twins.config
  encoder, targets = make_batch(config, seed=5)
  prompt = _prompt(config, 6)
  peft_config = peft.PromptTuningConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=6,
    num_transformer_submodules=1,
    token_dim=config.emb_dim,
    num_layers=config.num_encoder_layers,
    num_attention_heads=config.num_heads,
  )
  model = peft.get_peft_model(
    copy.deepcopy(tiny_twins.torch_model), peft_config
  ).eval()
  with torch.no_grad():
    model.prompt_encoder["default"].embedding.weight.copy_(torch.tensor(prompt))
    ids = torch.as_tensor(encoder).long()
    labels = torch.as_tensor(targets).long()
    generated = model.generate(
      input_ids=ids,
      attention_mask=(ids != 0).long(),
      max_new_tokens=6,
      do_sample=False,
    )[:, 1:].numpy()
  ignored = torch.where(labels == 0, -100, labels)
  output = model(
    input_ids=ids, attention_mask=(ids != 0).long(), labels=ignored
  )
  output.loss.backward()
  theirs = output.logits.detach()
  their_gradient = model.prompt_encoder["default"].embedding.weight.grad

  ours_model = network.T5(config)
  delta = Delta(virtual=jnp.asarray(prompt)[None])
  batch = _jax_batch(_with_prompt(encoder, config, 6), targets)
  ours = jax.jit(ours_model.apply)({"params": tiny_twins.params}, batch, delta)
  _check_on_targets(ours, theirs, targets, tolerance)

  def mean_loss(virtual):
    logits = ours_model.apply(
      {"params": tiny_twins.params}, batch, Delta(virtual=virtual)
    )
    # Hugging Face averages over tokens.
    scores = network.score(logits, batch["decoder_target_tokens"])
    return -jnp.mean(scores) * len(targets) / float(np.sum(targets != 0))

  loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(delta.virtual)
  np.testing.assert_allclose(loss, output.loss.detach(), **tolerance["parity"])
  np.testing.assert_allclose(gradient[0], their_gradient, **tolerance["parity"])
  scores = network.score(ours, batch["decoder_target_tokens"])
  picked = theirs.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
  expected = (picked * (labels != 0)).sum(-1)
  np.testing.assert_allclose(scores, expected, **tolerance["parity"])
  generate = functools.partial(
    decoding.generate, ours_model, length=6, method=decoding.Greedy()
  )
  decoded = jax.jit(generate)(tiny_twins.params, batch, delta)
  padded = np.zeros((3, 6), int)
  padded[:, : generated.shape[1]] = generated
  np.testing.assert_array_equal(decoded.tokens[:, 0], padded)
