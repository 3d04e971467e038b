"""Optimizers against T5X's Adafactor in numpy, and banks against solo runs."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.core import partition, tree
from prompt_tuning.train.optimizers import (
  RESTORED_STEP,
  Adafactor,
  AtRate,
  ByPath,
  ClipByGlobalNorm,
  Optax,
  bank_optimizer,
  flatten_state,
  restore_state,
)
from prompt_tuning.train.schedules import FactorSchedule

H = 160  # like every T5's, above the factoring threshold and above P
STEPS = 20


def _rms(x):
  return np.sqrt(np.mean(np.square(x, dtype=np.float64)))


def _gradients(shape, steps=STEPS, seed=0, shrink=0.9):
  """Noise around a drift, with rows and columns of very different size.

  Gradients shrink at every step, so that short and long memories differ.
  """
  rng = np.random.default_rng(seed)
  scale = 10.0 ** rng.uniform(-3, 1, (shape[0], 1))
  scale = scale * 10.0 ** rng.uniform(-1, 1, shape[1:])
  drift = rng.normal(size=shape)
  for step in range(steps):
    noise = rng.normal(size=shape)
    yield (shrink**step * scale * (drift + 2 * noise)).astype(np.float32)


def _prompt(shape, seed=1):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 5


def _numpy_adafactor(prompt, gradients, start, rate=0.3, decay=1e-5):
  """The rule of numbers.md section 7, in float32 as T5X runs it."""
  f = np.float32
  length, width = prompt.shape
  factored = min(length, width) >= 128
  v = np.zeros_like(prompt)
  rows, columns = np.zeros(length, f), np.zeros(width, f)
  for t, g in enumerate(gradients, start):
    b = f(1) - f(t + 1) ** f(-0.8)
    squares = g * g + f(1e-30)
    if factored:
      rows = b * rows + (f(1) - b) * squares.mean(1)
      columns = b * columns + (f(1) - b) * squares.mean(0)
      y = g / np.sqrt(rows / rows.mean())[:, None] / np.sqrt(columns)
    else:
      v = b * v + (f(1) - b) * squares
      y = g / np.sqrt(v)
    y = y / max(f(1), f(_rms(y)))
    prompt = f(1 - decay) * prompt - f(rate) * y
  return prompt


def _run(optimizer, params, gradients, update=None):
  """Train a bank; returns its parameters and state after every step."""
  state = optimizer.init(params)
  update = jax.jit(optimizer.update) if update is None else update
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def _bank(*arrays):
  return {"tuner": {"prompt": jnp.stack([jnp.asarray(a) for a in arrays])}}


def _get(params):
  return np.asarray(params["tuner"]["prompt"])


@pytest.mark.parametrize("start", [0, RESTORED_STEP])
@pytest.mark.parametrize("length", [100, 127, 128, 150])
def test_adafactor_equals_the_rule_of_t5x(length, start, tolerance):
  prompt = _prompt((length, H))
  optimizer = bank_optimizer(Adafactor(), [0.3], start_step=start)

  params, _ = _run(
    optimizer, _bank(prompt), map(_bank, _gradients(prompt.shape))
  )

  expected = _numpy_adafactor(prompt, _gradients(prompt.shape), start)
  np.testing.assert_allclose(_get(params)[0], expected, **tolerance["oracle"])
  assert np.abs(expected - prompt).max() > 1


def test_the_start_step_changes_the_direction():
  prompt, ends = _prompt((100, H)), []
  for start in (0, RESTORED_STEP):
    optimizer = bank_optimizer(Adafactor(), [0.3], start_step=start)
    params, _ = _run(
      optimizer, _bank(prompt), map(_bank, _gradients(prompt.shape))
    )
    ends.append(_get(params)[0] - prompt)

  norms = [np.linalg.norm(end) for end in ends]
  cosine = (ends[0] * ends[1]).sum() / np.prod(norms)
  assert 0.5 < cosine < 0.99


@pytest.mark.parametrize(
  ("length", "shapes"),
  [
    (100, {"v": (1, 100, 768), "v_row": (1, 1), "v_col": (1, 1)}),
    (127, {"v": (1, 127, 768), "v_row": (1, 1), "v_col": (1, 1)}),
    (128, {"v": (1, 1), "v_row": (1, 128), "v_col": (1, 768)}),
    (150, {"v": (1, 1), "v_row": (1, 150), "v_col": (1, 768)}),
  ],
)
def test_state_shapes_show_whether_a_prompt_is_factored(length, shapes):
  optimizer = bank_optimizer(Adafactor(), [0.3], start_step=0)

  state = flatten_state(optimizer.init(_bank(_prompt((length, 768)))))

  for name, shape in shapes.items():
    assert state[f"0/{name}/tuner/prompt"].shape == shape


@pytest.mark.parametrize("length", [100, 150])
def test_every_update_of_the_restored_regime_has_the_rms_of_its_rate(length):
  prompt = _prompt((length, 768))
  optimizer = bank_optimizer(
    Adafactor(weight_decay=None), [0.3], start_step=RESTORED_STEP
  )
  update = jax.jit(optimizer.update)
  params = _bank(prompt)
  state = optimizer.init(params)
  stationary = _gradients(prompt.shape, 101, shrink=1.0)
  for step, gradient in enumerate(stationary):
    updates, state = update(_bank(gradient), state, params)
    params = optax.apply_updates(params, updates)
    if step in (0, 10, 100):
      assert abs(_rms(_get(updates)) - 0.3) < 1e-5


def test_from_scratch_the_rms_is_the_rate_at_first_and_then_below():
  # numbers.md section 7: .3000, .2905 at steps 0 and 10; 0.27 to 0.30 overall.
  rng = np.random.default_rng(0)
  gradients = [rng.normal(size=(100, 768)).astype("f4") for _ in range(11)]
  optimizer = bank_optimizer(Adafactor(weight_decay=None), [0.3], start_step=0)
  params = _bank(gradients[0])
  state = optimizer.init(params)
  values = []
  for gradient in gradients:
    updates, state = optimizer.update(_bank(gradient), state, params)
    values.append(_rms(_get(updates)))

  assert abs(values[0] - 0.3) < 1e-5
  assert 0.27 < min(values) <= values[10] < 0.3


@pytest.mark.parametrize(
  ("step", "mixing"),
  [(1_100_000, 1.4685e-5), (1_130_000, 1.4373e-5), (1_150_000, 1.4172e-5)],
)
def test_second_moment_mixing_of_the_restored_step(step, mixing, tolerance):
  optimizer = bank_optimizer(Adafactor(), [0.3], start_step=step)
  params = _bank(np.zeros((2, 3), np.float32))
  ones = _bank(np.ones((2, 3), np.float32))

  _, state = optimizer.update(ones, optimizer.init(params), params)

  # 1 - b is a multiple of 2^-24 in float32: relative grain 4e-3.
  second_moment = flatten_state(state)["0/v/tuner/prompt"]
  np.testing.assert_allclose(second_moment, mixing, **tolerance["grain"])


def test_weight_decay_is_not_multiplied_by_the_rate(tolerance):
  prompt = _prompt((4, 8))
  zeros = _bank(*[np.zeros_like(prompt)] * 2)
  optimizer = bank_optimizer(Adafactor(), [0.3, 1e-3], start_step=0)

  params, _ = _run(optimizer, _bank(prompt, prompt), [zeros] * 100)

  expected = prompt * (1 - 1e-5) ** 100
  np.testing.assert_allclose(_get(params)[0], expected, **tolerance["oracle"])
  np.testing.assert_array_equal(_get(params)[0], _get(params)[1])


def _label(factory):
  return getattr(factory, "name", type(factory).__name__)


_FACTORIES = [
  Adafactor(),
  Optax("adam"),
  Optax("adamw", weight_decay=0.1),
  Optax("sgd", momentum=0.9),
  Optax("lion"),
  ClipByGlobalNorm(Optax("sgd"), 1.0),
]


@pytest.mark.parametrize("factory", _FACTORIES, ids=_label)
@pytest.mark.parametrize("length", [20, 130])
def test_a_bank_equals_its_solo_runs(factory, length, tolerance):
  rates = [0.3, 0.01, 0.1]
  schedule = FactorSchedule("constant * linear_warmup", warmup_steps=5)
  prompts = [_prompt((length, H), seed) for seed in range(3)]
  streams = [list(_gradients((length, H), seed=seed)) for seed in range(3)]

  def train(rates, prompts, streams):
    optimizer = bank_optimizer(factory, rates, start_step=3, schedule=schedule)
    steps = (_bank(*gradients) for gradients in zip(*streams, strict=True))
    return _get(_run(optimizer, _bank(*prompts), steps)[0])

  together = train(rates, prompts, streams)

  for k in range(3):
    alone = train(rates[k : k + 1], prompts[k : k + 1], streams[k : k + 1])
    # Only the order of sums inside a mean may differ.
    largest = np.abs(alone[0]).max()
    ours, theirs = together[k] / largest, alone[0] / largest
    np.testing.assert_allclose(ours, theirs, **tolerance["alone"])
    assert np.abs(alone[0] - prompts[k]).max() > 0.01


@pytest.mark.parametrize(
  "factory",
  [Adafactor(multiply_by_parameter_scale=True), Optax("lamb")],
  ids=_label,
)
def test_runs_of_other_lengths_equal_their_solo_runs(factory, tolerance):
  """Whatever takes a mean takes it over the rows that are a run's own."""
  lengths, path = (2, 130, 2, 5), "prompt"
  prompts = [_prompt((n, H), seed) for seed, n in enumerate(lengths)]
  gradients = [
    list(_gradients((n, H), 3, seed)) for seed, n in enumerate(lengths)
  ]

  def padded(array):
    return np.pad(array, ((0, 130 - len(array)), (0, 0)))

  optimizer = bank_optimizer(
    factory,
    [0.1, 0.2, 0.3, 0.4],
    start_step=5,
    rows=[{path: 2}, {}, {path: 2}, {path: 5}],
  )
  together = {path: jnp.stack([*map(padded, prompts)])}
  steps = [
    {path: jnp.stack([*map(padded, of_step)])}
    for of_step in zip(*gradients, strict=True)
  ]
  found, state = _run(optimizer, together, steps)
  for k, n in enumerate(lengths):
    solo = bank_optimizer(factory, [0.1 * (k + 1)], start_step=5)
    expected, of_run = _run(
      solo,
      {path: jnp.asarray(prompts[k])[None]},
      [{path: g[None]} for g in gradients[k]],
    )
    np.testing.assert_allclose(
      found[path][k, :n], expected[path][0], **tolerance["same"]
    )
    assert not found[path][k, n:].any()
    taken = flatten_state(optimizer.take(state, [k]))
    for name, array in flatten_state(of_run).items():
      np.testing.assert_allclose(taken[name], array, **tolerance["same"])


def test_a_bank_of_several_leaves_clips_each_run_by_its_own_norm(tolerance):
  optimizer = bank_optimizer(
    ClipByGlobalNorm(Optax("sgd"), 5.0), [1.0, 1.0], start_step=0
  )
  params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((2, 1))}
  gradients = {
    "a": jnp.array([[3.0, 0.0], [30.0, 0.0]]),
    "b": jnp.array([[4.0], [40.0]]),
  }

  updates, _ = optimizer.update(gradients, optimizer.init(params), params)

  np.testing.assert_allclose(
    updates["a"], [[-3, 0], [-3, 0]], **tolerance["arithmetic"]
  )
  np.testing.assert_allclose(
    updates["b"], [[-4], [-4]], **tolerance["arithmetic"]
  )


def test_schedules_count_from_the_restored_step(tolerance):
  schedule = FactorSchedule("constant * rsqrt_decay", warmup_steps=10)
  optimizer = bank_optimizer(
    Optax("sgd"), [2.0, 4.0], start_step=90, schedule=schedule
  )
  params = {"p": jnp.zeros((2, 1))}
  ones = {"p": jnp.ones((2, 1))}
  state = optimizer.init(params)

  for count in range(31):
    updates, state = optimizer.update(ones, state, params)
    rates = np.array([2.0, 4.0]) / np.sqrt(90 + count)
    np.testing.assert_allclose(
      updates["p"][:, 0], -rates, **tolerance["arithmetic"]
    )


def test_frozen_leaves_are_absent_from_the_state():
  params = {
    "model": {"embedding": jnp.zeros((1, 7, 3))},
    "tuner": {"prompt": jnp.zeros((1, 2, 3))},
  }
  rules = partition.build(partition.TUNER_ONLY, params)
  trainable, _ = rules.split(params)

  state = flatten_state(
    bank_optimizer(Adafactor(), [0.3], start_step=0).init(trainable)
  )

  assert not [name for name in state if "model" in name or "embed" in name]
  assert all(7 not in leaf.shape for leaf in state.values())


@pytest.mark.parametrize("factory", _FACTORIES, ids=_label)
def test_a_run_continues_bit_identically_from_its_flat_state(factory):
  shape = (5, 8)
  gradients = [_bank(g, -g) for g in _gradients(shape)]
  start = _bank(_prompt(shape), _prompt(shape, 2))
  optimizer = bank_optimizer(factory, [0.3, 0.1], start_step=RESTORED_STEP)
  expected, _ = _run(optimizer, start, gradients)

  params, state = _run(optimizer, start, gradients[:7])
  saved = {name: np.array(leaf) for name, leaf in flatten_state(state).items()}
  template = jax.eval_shape(optimizer.init, start)
  resumed = restore_state(template, saved)
  update = jax.jit(optimizer.update)
  for gradient in gradients[7:]:
    updates, resumed = update(gradient, resumed, params)
    params = optax.apply_updates(params, updates)

  np.testing.assert_array_equal(_get(params), _get(expected))
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
  assert jax.tree.structure(resumed) == jax.tree.structure(state)


def test_state_also_passes_through_flax_serialization():
  optimizer = bank_optimizer(Adafactor(), [0.3], start_step=0)
  state = optimizer.init(params := _bank(_prompt((4, 8))))
  _, state = optimizer.update(params, state, params)

  data = flax.serialization.to_bytes(state)
  again = flax.serialization.from_bytes(optimizer.init(params), data)

  jax.tree.map(np.testing.assert_array_equal, again, state)


def test_by_path_every_parameter_trains_as_if_alone():
  factory = ByPath(
    {"tuner/weights": AtRate(Optax("sgd"), 0.5), ".*": Adafactor()}
  )
  prompt = _bank(_prompt((5, 8)))
  start = {"tuner": {"weights": jnp.ones((1, 4)), **prompt["tuner"]}}
  optimizer = bank_optimizer(factory, [0.3], start_step=7)
  alone = bank_optimizer(Adafactor(), [0.3], start_step=7)

  state, params = optimizer.init(start), start
  own_state, own = alone.init(prompt), prompt
  for g in map(_bank, _gradients((5, 8), steps=3)):
    both = {"tuner": {"weights": jnp.ones((1, 4)), **g["tuner"]}}
    updates, state = optimizer.update(both, state, params)
    params = optax.apply_updates(params, updates)
    updates, own_state = alone.update(g, own_state, own)
    own = optax.apply_updates(own, updates)

  np.testing.assert_array_equal(params["tuner"]["weights"], [[-0.5] * 4])
  np.testing.assert_array_equal(_get(params), _get(own))
  # It is saved, and comes back, as any other.
  flat = flatten_state(state)
  names = {"v/tuner/prompt" in name for name in flat}
  assert names == {True, False}
  again = restore_state(jax.eval_shape(optimizer.init, start), flat)
  jax.tree.map(np.testing.assert_array_equal, again, state)


@pytest.mark.parametrize(
  ("patterns", "message"),
  [
    (["tuner/prompt"], "No pattern .* matches tuner/weights"),
    (["tuner/.*", "tuner/weight"], "'tuner/weight' .* match no"),
  ],
)
def test_paths_that_no_optimizer_has(patterns, message):
  optimizers = dict.fromkeys(patterns, Optax("sgd"))
  optimizer = bank_optimizer(ByPath(optimizers), [0.3], start_step=0)
  params = {"tuner": {"prompt": jnp.ones((1, 2)), "weights": jnp.ones((1, 2))}}
  with pytest.raises(ValueError, match=message):
    optimizer.init(params)


def test_a_state_of_another_run_is_refused_with_all_faults():
  optimizer = bank_optimizer(Adafactor(), [0.3], start_step=0)
  flat = flatten_state(optimizer.init(_bank(_prompt((4, 8)))))
  other = jax.eval_shape(optimizer.init, _bank(_prompt((5, 8))))
  flat["surplus"] = flat.pop("0/count")

  with pytest.raises(ValueError, match="start a new run in another") as error:
    restore_state(other, flat)

  message = str(error.value)
  assert "0/count is missing" in message
  assert "surplus is unknown" in message
  assert "float32[1, 4, 8], expected float32[1, 5, 8]" in message


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: bank_optimizer(Adafactor(), [], start_step=0), "one number per"),
    (lambda: bank_optimizer(Adafactor(), 0.3, start_step=0), "one number per"),
    (lambda: bank_optimizer(Adafactor(), [0.0], start_step=0), "positive"),
    (lambda: bank_optimizer(Adafactor(), [1.0], start_step=-1), "negative"),
    (lambda: ByPath({}), "expected at least one pattern"),
    (lambda: AtRate(Optax("sgd"), 0.0), "positive"),
    (lambda: Optax("rmsprp"), "Did you mean 'rmsprop'"),
    (lambda: Optax("adafactor"), "use the class `Adafactor`"),
    (lambda: Optax("adam", beta1=0.9), "unexpected keyword argument 'beta1'"),
  ],
)
def test_malformed_settings(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_trees_that_cannot_be_trained():
  optimizer = bank_optimizer(Adafactor(), [0.3, 0.1], start_step=0)

  with pytest.raises(ValueError, match="Nothing to train"):
    optimizer.init({})
  with pytest.raises(ValueError, match=r"tuner/prompt has shape \(1, 4, 8\)"):
    optimizer.init(_bank(np.zeros((4, 8), np.float32)))


def test_paths_of_the_state_name_the_parameters():
  optimizer = bank_optimizer(Optax("adam"), [0.3], start_step=0)
  params = tree.unflatten({"tuner/a/b": jnp.zeros((1, 2))})

  names = set(flatten_state(optimizer.init(params)))

  assert names == {
    "0/count",
    "0/mu/tuner/a/b",
    "0/nu/tuner/a/b",
    "1/count",
  }
