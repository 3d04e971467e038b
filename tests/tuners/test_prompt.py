"""The prompt module: paths, axes, placement, and banks of runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from prompt_tuning.core import tree
from prompt_tuning.tuners import bank
from prompt_tuning.tuners.copying import FromFile
from prompt_tuning.tuners.ia3 import IA3
from prompt_tuning.tuners.initializers import (
  ClassLabels,
  InitializerContext,
  SampledVocabulary,
  Uniform,
)
from prompt_tuning.tuners.method import Inputs
from prompt_tuning.tuners.prompt import Prompt

H = 6
TABLE = np.random.default_rng(0).normal(size=(40, H)).astype(np.float32)
CONTEXT = InitializerContext(
  TABLE,
  lambda text: [5 + len(text)],
  ("no", "yes"),
  load_prompt={"a bundle": TABLE[:4]}.__getitem__,
)
ENCODER = "encoder/prompt/prompt/prompt"
DECODER = "decoder/prompt/prompt/prompt"


def _prompt(**kwargs):
  return Prompt(
    **{"emb_dim": H, "encoder_init": Uniform(), "decoder_init": Uniform()}
    | kwargs
  )


def _solo(module, seed=0):
  boxed = module.init(jax.random.key(seed), Inputs(CONTEXT))["params"]
  return tree.flatten(meta.unbox(boxed))


def test_parameter_path_shape_and_axes_are_those_of_t5x():
  module = _prompt(encoder_length=3)

  variables = module.init(jax.random.key(0), Inputs(CONTEXT))

  (path, leaf), *others = tree.flatten(variables["params"]).items()
  assert (path, others) == (ENCODER, [])
  assert leaf.names == ("prompt", "prompt_embed")
  assert leaf.value.shape == (3, H)
  assert leaf.value.dtype == jnp.float32


@pytest.mark.parametrize("width", [512, 768, 1024, 2048, 4096])
@pytest.mark.parametrize("length", [1, 5, 20, 50, 100, 150])
def test_parameter_count_is_length_times_width(width, length):
  module = _prompt(emb_dim=width, encoder_length=length)

  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), Inputs()))

  assert sum(x.size for x in jax.tree.leaves(shapes)) == length * width


def test_virtual_rows_are_encoder_then_decoder():
  module = _prompt(encoder_length=3, decoder_length=2)
  params = _solo(module)

  delta = module.apply({"params": tree.unflatten(params)}, Inputs())

  expected = np.concatenate([params[ENCODER], params[DECODER]])
  np.testing.assert_array_equal(delta.virtual, expected)
  assert not np.array_equal(params[ENCODER][:2], params[DECODER])
  assert jax.tree.leaves(delta)[0] is delta.virtual
  assert len(jax.tree.leaves(delta)) == 1


@pytest.mark.parametrize(
  ("settings", "prefix", "suffix", "decoder"),
  [
    ({"encoder_length": 3}, (0, 1, 2), (), ()),
    ({"encoder_length": 2, "encoder_position": "after"}, (), (0, 1), ()),
    ({"encoder_length": 0, "decoder_length": 2}, (), (), (0, 1)),
    ({"encoder_length": 1, "decoder_length": 2}, (0,), (), (1, 2)),
    (
      {"encoder_length": 1, "decoder_length": 2, "encoder_rows": 4},
      (0,),
      (),
      (4, 5),
    ),
  ],
)
def test_placement(settings, prefix, suffix, decoder):
  placement = _prompt(**settings).placement

  assert placement.encoder_prefix == prefix
  assert placement.encoder_suffix == suffix
  assert placement.decoder_prefix == decoder


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"encoder_length": 0}, "no vectors; set PROMPT_LENGTH"),
    ({"encoder_length": -1}, "expected PROMPT_LENGTH at 0 or more"),
    ({"encoder_length": 5, "encoder_rows": 4}, "cannot have 4 rows"),
    ({"encoder_position": "behind"}, "expected one of 'before', 'after', 'af"),
  ],
)
def test_malformed_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    _prompt(**settings)


def test_the_gradient_of_a_row_is_the_gradient_of_its_virtual_token():
  module = _prompt(encoder_length=2, decoder_length=1)
  params = tree.unflatten(_solo(module))

  def loss(params):
    return jnp.sum(module.apply({"params": params}, Inputs()).virtual[1:] ** 2)

  grads = tree.flatten(jax.grad(loss)(params))

  flat = tree.flatten(params)
  np.testing.assert_array_equal(grads[ENCODER][0], np.zeros(H))
  np.testing.assert_allclose(grads[ENCODER][1], 2 * flat[ENCODER][1])
  np.testing.assert_allclose(grads[DECODER], 2 * flat[DECODER])


def test_bank_of_mixed_initialisers_equals_its_solo_runs_bitwise():
  inits = [
    Uniform(),
    SampledVocabulary(30),
    ClassLabels(("yes", "perhaps"), Uniform()),
    FromFile("a bundle"),
  ]
  modules = [_prompt(encoder_length=4, encoder_init=init) for init in inits]
  keys = list(jax.random.split(jax.random.key(1), len(modules)))

  stacked = bank.init_bank(modules, keys, [CONTEXT] * len(modules))

  (path, leaf), *_ = tree.flatten(stacked.params).items()
  assert leaf.shape == (4, 4, H)
  for k, module in enumerate(modules):
    solo = meta.unbox(module.init(keys[k], Inputs(CONTEXT))["params"])
    np.testing.assert_array_equal(leaf[k], tree.flatten(solo)[path])
  np.testing.assert_array_equal(leaf[3], TABLE[:4])


def test_runs_see_the_words_of_their_own_task():
  module = _prompt(encoder_length=1, encoder_init=ClassLabels())
  contexts = [
    InitializerContext(TABLE, CONTEXT.tokenize, (word,))
    for word in ("a", "abcd")
  ]

  stacked = bank.init_bank([module] * 2, [jax.random.key(0)] * 2, contexts)

  rows = tree.flatten(stacked.params)[ENCODER][:, 0]
  np.testing.assert_array_equal(rows, TABLE[[6, 9]])


def test_bank_axes_begin_with_run():
  module = _prompt(encoder_length=2, decoder_length=3)

  stacked = bank.init_bank([module], [jax.random.key(0)], [CONTEXT])

  axes = ("run", "prompt", "prompt_embed")
  assert tree.flatten(stacked.axes) == {ENCODER: axes, DECODER: axes}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_bank_delta_stacks_the_solo_deltas(wrap):
  module = _prompt(encoder_length=2, decoder_length=1)
  keys = list(jax.random.split(jax.random.key(3), 3))
  stacked = bank.init_bank([module] * 3, keys, [CONTEXT] * 3)

  delta = wrap(lambda params: bank.apply_bank(module, params))(stacked.params)

  assert delta.virtual.shape == (3, 3, H)
  for k in range(3):
    own = jax.tree.map(lambda a, k=k: a[k], stacked.params)
    solo = module.apply({"params": own}, Inputs())
    np.testing.assert_array_equal(delta.virtual[k], solo.virtual)


@pytest.mark.parametrize(
  "lengths",
  [[(3, 0), (1, 0)], [(0, 1), (0, 2)], [(1, 2), (3, 1), (2, 2)]],
)
def test_aligned_prompts_keep_their_vectors_and_placements(lengths):
  modules = [_prompt(encoder_length=e, decoder_length=d) for e, d in lengths]
  aligned = Prompt.aligned(modules)
  keys = list(jax.random.split(jax.random.key(0), len(modules)))

  stacked = bank.init_bank(aligned, keys, [CONTEXT] * len(modules))
  virtual = np.asarray(bank.apply_bank(aligned[0], stacked.params).virtual)

  for k, (before, after) in enumerate(zip(modules, aligned, strict=True)):
    solo = meta.unbox(before.init(keys[k], Inputs(CONTEXT))["params"])
    alone = np.asarray(before.apply({"params": solo}, Inputs()).virtual)
    for field in ("encoder_prefix", "decoder_prefix"):
      mine = getattr(after.placement, field)
      theirs = getattr(before.placement, field)
      np.testing.assert_array_equal(virtual[k][list(mine)], alone[list(theirs)])
    used = {*after.placement.encoder_prefix, *after.placement.decoder_prefix}
    unused = sorted(set(range(virtual.shape[1])) - used)
    assert not virtual[k][unused].any()


def test_prompts_of_other_stacks_are_not_aligned():
  assert Prompt.aligned([_prompt(), _prompt(decoder_length=2)]) is None
  assert Prompt.aligned([_prompt(), IA3()]) is None


def test_only_rows_beside_its_own_are_named():
  short, long = Prompt.aligned([_prompt(encoder_length=n) for n in (2, 3)])
  assert short.rows == {"encoder/prompt/prompt/prompt": 2}
  assert long.rows == {}


def test_runs_of_different_length_do_not_stack_by_accident():
  modules = [_prompt(encoder_length=n) for n in (2, 3)]

  with pytest.raises(ValueError, match="Train different lengths as separate"):
    bank.init_bank(modules, [jax.random.key(0)] * 2, [CONTEXT] * 2)


def test_bank_arguments_must_agree_in_number():
  with pytest.raises(ValueError, match="1 tuners, 2 keys and 1 contexts"):
    bank.init_bank([_prompt()], [jax.random.key(0)] * 2, [CONTEXT])


def test_behind_the_first_token_is_a_place_of_its_own():
  placement = _prompt(
    encoder_length=2, encoder_position="after_first"
  ).placement
  assert placement.encoder_infix == placement.encoder_rows == (0, 1)
  assert placement.encoder_prefix == placement.encoder_suffix == ()


@pytest.mark.parametrize("sees_text", [True, False])
@pytest.mark.parametrize(
  ("sees", "before", "after"),
  [("all", True, True), ("earlier", True, False), ("itself", False, False)],
)
def test_the_six_settings_of_what_a_prompt_sees(sees, before, after, sees_text):
  prompt = Prompt(emb_dim=2, encoder_length=2, sees=sees, sees_text=sees_text)
  delta = prompt.apply({"params": _drawn(prompt)}, Inputs())
  if sees == "all" and sees_text:
    assert delta.sight is None  # nothing is hidden: the plain model
    return
  assert delta.sight.tolist() == [before, after, sees_text]
  banked = jax.tree.map(lambda a: a[None], delta)
  assert "see each other" in prompt.to_peft(banked)
  control = prompt.control(banked, jax.random.key(0))
  assert control.sight is banked.sight


def _drawn(prompt):
  table = np.ones((9, 2), np.float32)
  variables = prompt.init(
    jax.random.key(0), Inputs(InitializerContext(embeddings=table))
  )
  return meta.unbox(variables["params"])


def test_another_word_for_what_it_sees_is_named():
  with pytest.raises(ValueError, match="PROMPT_SEES has 'later'"):
    Prompt(sees="later")
  with pytest.raises(ValueError, match="PROMPT_SEES_TEXT must be True or"):
    Prompt(sees_text="no")
