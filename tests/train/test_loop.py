"""The loop: exact resumption, best and last, stopping, bad endings."""

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import tree
from prompt_tuning.train import logs, loop
from prompt_tuning.train.errors import UnreachedError
from prompt_tuning.train.loop import BUNDLES
from tests.failing_files import Disk, Killed, full_disk

SEEDS = (0, 1)
RUN = {"method": "prompt", "backbone": "abc"}


@pytest.fixture(scope="module")
def bank(params, setup):
  return setup(params, SEEDS)


def settings(**changes):
  return loop.Settings(
    **{
      "num_steps": 12,
      "log_period": 3,
      "eval_period": 4,
      "save_period": 4,
      "progress_bar": False,
      "tensorboard": False,
    }
    | changes
  )


def train(
  bank,
  folder,
  batches,
  evaluate=None,
  step=None,
  run=RUN,
  about=None,
  **changes,
):
  return loop.train(
    step or bank.step,
    bank.state,
    bank.frozen,
    batches,
    settings=settings(**changes),
    folder=folder,
    manifest=run,
    about=about or {},
    summarise=bank.program.objective.summarise,
    evaluate=evaluate,
  )


def scores_from(trainable):
  """A score that depends on the prompts, different for every run."""
  values = np.asarray(next(iter(tree.flatten(trainable).values())))
  return [
    loop.RunEvaluation(
      float(np.sin(v.sum() * 10)), {"t/accuracy": float(v.mean())}
    )
    for v in values
  ]


def bytes_below(folder, *names):
  """Every file of the bundles, by relative path."""
  root = pathlib.Path(folder)
  return {
    str(p.relative_to(root)): p.read_bytes()
    for name in names
    for p in sorted((root / name).rglob("*"))
    if p.is_file()
  }


@pytest.fixture(scope="module")
def undisturbed(bank, counted_batches, tmp_path_factory):
  folder = tmp_path_factory.mktemp("undisturbed")
  train(bank, folder, counted_batches(SEEDS), scores_from)
  return bytes_below(folder, "bundles", "best")


@pytest.mark.parametrize("moment", range(0, 76, 4))
def test_killed_anywhere_continues_bit_for_bit(
  moment, bank, counted_batches, undisturbed, tmp_path, monkeypatch
):
  """Die at every kind of moment: steps, evaluations, and inside of writes."""
  moments = itertools.count()

  def killed(*_):
    return next(moments) == moment and Killed()

  def dying(function):
    def wrapped(*args, **kwargs):
      if error := killed():
        raise error
      return function(*args, **kwargs)

    return wrapped

  with monkeypatch.context() as patch, contextlib.suppress(Killed):
    Disk(patch, killed)
    step, evaluate = dying(bank.step), dying(scores_from)
    train(bank, tmp_path, counted_batches(SEEDS), evaluate, step)
  assert next(moments) == moment + 1, "it was not killed"
  train(bank, tmp_path, counted_batches(SEEDS), scores_from)
  assert bytes_below(tmp_path, "bundles", "best") == undisturbed


def named(folder, run):
  """List the steps that the records of all bundles name as a run's best."""
  records = [m["progress"]["best"] for m in bundle.manifests(folder / BUNDLES)]
  return sorted({record[run]["step"] for record in records})


def scripted(scores):
  """Give run 0 these scores at these steps, and run 1 always the same."""

  def evaluate(trainable):
    del trainable
    return [loop.RunEvaluation(next(scores), {}), loop.RunEvaluation(0.0, {})]

  return evaluate


def test_the_old_best_stays_until_a_bundle_names_the_new_one(
  bank, counted_batches, tmp_path
):
  """Killed behind a better evaluation, and never trained so far again."""

  def dies(state, *rest):
    if int(state.step) == 8:
      raise Killed
    return bank.step(state, *rest)

  every = {"eval_period": 4, "save_period": 6}
  batches = counted_batches(SEEDS)
  with pytest.raises(Killed):
    train(bank, tmp_path, batches, scripted(iter([1.0, 2.0])), dies, **every)
  assert bundle.steps(tmp_path / BUNDLES) == [6]
  assert bundle.steps(tmp_path / "best" / "run_0") == [4, 8]
  worse = scripted(iter([0.0]))
  batches = counted_batches(SEEDS)
  result = train(bank, tmp_path, batches, worse, num_steps=7, **every)
  assert result.best[0]["step"] == 4
  for run in (0, 1):
    kept = bundle.steps(tmp_path / "best" / f"run_{run}")
    assert kept == named(tmp_path, run) == [4]


def test_the_record_decides_what_is_kept_not_the_number(
  bank, counted_batches, tmp_path
):
  """A resumed run evaluates at other steps: its best has a lower number."""

  def dies(state, *rest):
    if int(state.step) == 8:
      raise Killed
    return bank.step(state, *rest)

  batches = counted_batches(SEEDS)
  every = {"eval_period": 4, "save_period": 6}
  with pytest.raises(Killed):
    train(bank, tmp_path, batches, scripted(iter([1.0, 2.0])), dies, **every)
  batches, scores = counted_batches(SEEDS), iter([3.0, 0.0, 0.0, 0.0])
  every = {"eval_period": 7, "save_period": 0}
  result = train(bank, tmp_path, batches, scripted(scores), **every)
  assert result.best[0]["step"] == 7
  kept = bundle.steps(tmp_path / "best" / "run_0")
  assert kept == named(tmp_path, 0) == [4, 7]


def test_damaged_bundles_do_not_push_out_the_new_one(
  bank, counted_batches, tmp_path
):
  train(bank, tmp_path, counted_batches(SEEDS), save_period=4, keep=3)
  for step in (8, 12):
    path = bundle.step_path(tmp_path / BUNDLES, step)
    (path / "resume.safetensors").unlink()
  more = {"num_steps": 6, "save_period": 0, "keep": 2}
  train(bank, tmp_path, counted_batches(SEEDS), **more)
  assert bundle.steps(tmp_path / BUNDLES) == [4, 6]


def test_bundles_from_which_nothing_can_go_on(bank, counted_batches, tmp_path):
  """As a stranger would write them, digests and all: one error each."""
  train(bank, tmp_path, counted_batches(SEEDS), num_steps=2, save_period=2)
  path = bundle.step_path(tmp_path / BUNDLES, 2)
  saved = bundle.read(path)
  progress = saved.manifest["progress"]
  forged = {
    "progress: expected the keys": {"progress": {**progress, "more": 1}},
    "progress.best: expected 2 of them; found 1": {
      "progress": {**progress, "best": [None]}
    },
    "progress.diverged: expected 2 of them": {
      "progress": {**progress, "diverged": [3]}
    },
    "progress.tokens: expected 2 of them": {
      "progress": {**progress, "tokens": [1]}
    },
    "data: expected an object; found nothing": {"data": None},
  }
  for says, changes in forged.items():
    manifest = {**saved.manifest, **changes}
    if changes.get("data", 0) is None:
      del manifest["data"]
    changed = dataclasses.replace(saved, manifest=manifest)
    bundle.write(path, changed)
    with pytest.raises(ValueError, match=says):
      train(bank, tmp_path, counted_batches(SEEDS))
  for name in ("step", "dropout_keys"):
    resume = {k: v for k, v in saved.resume.items() if k != name}
    bundle.write(path, dataclasses.replace(saved, resume=resume))
    with pytest.raises(ValueError, match=f"be continued: {name}: expected"):
      train(bank, tmp_path, counted_batches(SEEDS))


def test_a_run_whose_best_was_deleted_can_end(
  bank, counted_batches, tmp_path, caplog
):
  scores = scripted(iter([2.0]))
  train(bank, tmp_path, counted_batches(SEEDS), scores, num_steps=4)
  shutil.rmtree(tmp_path / "best" / "run_0")
  scores = scripted(iter([1.0, 0.0]))
  result = train(bank, tmp_path, counted_batches(SEEDS), scores)
  assert "The best step of run 0 so far is lost" in caplog.text
  assert [best["step"] for best in result.best] == [8, 4]
  assert bundle.steps(tmp_path / "best" / "run_0") == [8]


def untimed(folder):
  """Read a log without what depends on the clock."""
  return [
    {tag: value for tag, value in line.items() if "/timing/" not in tag}
    for line in logs.read(folder)
  ]


@pytest.mark.parametrize("stop", ["killed", "asked"])
def test_a_resumed_log_equals_an_undisturbed_one(
  stop, bank, counted_batches, tmp_path
):
  """Where no line is due when it stops: the sums go on, rounded alike."""

  def step(state, *rest):
    if int(state.step) == 7:
      if stop == "killed":
        raise Killed
      os.kill(os.getpid(), signal.SIGTERM)
    return bank.step(state, *rest)

  every = {"log_period": 5, "save_period": 3}
  quiet, other = tmp_path / "quiet", tmp_path / "other"
  train(bank, quiet, counted_batches(SEEDS), scores_from, **every)
  with contextlib.suppress(Killed):
    train(bank, other, counted_batches(SEEDS), scores_from, step, **every)
  train(bank, other, counted_batches(SEEDS), scores_from, **every)
  assert untimed(other) == untimed(quiet)
  last = [line["train/loss"] for line in untimed(quiet) if "train/loss" in line]
  assert len(last) == 6


def test_a_finished_run_does_nothing_more(
  bank, counted_batches, undisturbed, tmp_path
):
  train(bank, tmp_path, counted_batches(SEEDS), scores_from)
  result = train(bank, tmp_path, counted_batches(SEEDS), scores_from)
  assert int(result.state.step) == 12
  assert bytes_below(tmp_path, "bundles", "best") == undisturbed


def test_no_gradient_is_an_error_where_a_run_begins_only(
  bank, counted_batches, tmp_path, caplog
):
  """Later it is all learned, perhaps: a warning, as it is where one may be."""

  def step(state, *rest):
    state, metrics = bank.step(state, *rest)
    return state, metrics._replace(squares=np.zeros_like(metrics.squares))

  def run(folder, **changes):
    return train(bank, folder, counted_batches(SEEDS), step=step, **changes)

  with pytest.raises(UnreachedError, match="zero at each of 10 steps"):
    run(tmp_path / "new")
  run(tmp_path / "solved", insist_on_gradients=False)
  assert caplog.text.count("zero at each of 10 steps, in run 0, 1.") == 1
  run(tmp_path / "resumed", num_steps=4)
  run(tmp_path / "resumed", num_steps=14)
  assert caplog.text.count("zero at each of 10 steps, in run 0, 1.") == 2


def test_longer_training_continues(bank, counted_batches, tmp_path):
  """More steps than the saved run had equal a run of that many at once."""
  train(bank, tmp_path / "a", counted_batches(SEEDS), num_steps=8)
  a = train(bank, tmp_path / "a", counted_batches(SEEDS))
  b = train(bank, tmp_path / "b", counted_batches(SEEDS))
  for x, y in zip(
    jax.tree.leaves(a.state), jax.tree.leaves(b.state), strict=True
  ):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_what_a_bundle_says_besides_may_change(bank, counted_batches, tmp_path):
  for steps, text in ((4, "old"), (8, "new")):
    about = {"gin": text}
    batches = counted_batches(SEEDS)
    train(bank, tmp_path, batches, scores_from, about=about, num_steps=steps)
    _, last = bundle.read_latest(tmp_path / "bundles")
    assert last.manifest["gin"] == text
    assert last.manifest["run"] == RUN
  _, best = bundle.read_latest(tmp_path / "best" / "run_0")
  assert best.manifest["gin"] in ("old", "new")


def test_answers_are_written_at_every_evaluation(
  bank, counted_batches, tmp_path
):
  written = []

  def evaluate(trainable):
    return [
      found._replace(
        write=functools.partial(lambda k, s: written.append((k, s)), k)
      )
      for k, found in enumerate(scores_from(trainable))
    ]

  train(bank, tmp_path, counted_batches(SEEDS), evaluate, start_step=100)
  assert written == [(k, 100 + s) for s in (4, 8, 12) for k in (0, 1)]


def test_bundles_are_small_and_hold_no_backbone(
  bank, counted_batches, tmp_path
):
  train(bank, tmp_path, counted_batches(SEEDS))
  newest = bundle.read(bundle.step_path(tmp_path / "bundles", 12))
  assert list(newest.trainable) == ["tuner/encoder/prompt/prompt/prompt"]
  assert not [name for name in newest.resume if "model" in name]
  assert bundle.steps(tmp_path / "bundles") == [8, 12]
  prompt = newest.trainable["tuner/encoder/prompt/prompt/prompt"]
  size = sum(map(len, bytes_below(tmp_path, "bundles/step_00000012").values()))
  assert size < 4 * prompt.nbytes + 8_000


def test_the_best_of_every_run_is_kept(bank, counted_batches, tmp_path):
  history = []

  def evaluate(trainable):
    results = scores_from(trainable)
    flat = bundle.to_host(tree.flatten(trainable))
    history.append((results, flat))
    return results

  result = train(
    bank, tmp_path, counted_batches(SEEDS), evaluate, eval_period=2
  )
  for run in range(2):
    scores = [results[run].score for results, _ in history]
    best = int(np.argmax(scores))
    assert result.best[run]["step"] == 2 * (best + 1)
    assert result.best[run]["score"] == pytest.approx(max(scores))
    step = 2 * (best + 1)
    assert step in bundle.steps(tmp_path / "best" / f"run_{run}")
    kept = bundle.read(bundle.step_path(tmp_path / "best" / f"run_{run}", step))
    for path, array in kept.trainable.items():
      np.testing.assert_array_equal(
        array, history[best][1][path][run : run + 1]
      )


def test_the_best_need_not_be_kept(bank, counted_batches, tmp_path):
  """They are told all the same; nothing else changes."""
  batches = counted_batches(SEEDS)
  result = train(bank, tmp_path, batches, scores_from, keep_best=False)
  assert all(best["step"] in (4, 8, 12) for best in result.best)
  assert not (tmp_path / "best").exists()
  batches = counted_batches(SEEDS)
  again = train(bank, tmp_path, batches, scores_from, keep_best=False)
  assert again.best == result.best


def losses_from(trainable):
  """Evaluations of losses only, as of a model in pre-training."""
  return [
    found._replace(metrics={}, losses={"t/loss": -found.score})
    for found in scores_from(trainable)
  ]


@pytest.mark.parametrize("at_start", [True, False])
def test_evaluation_before_the_first_step(
  at_start, bank, counted_batches, tmp_path
):
  given = []

  def evaluate(trainable):
    given.append(bundle.to_host(tree.flatten(trainable)))
    return losses_from(trainable)

  batches = counted_batches(SEEDS)
  train(bank, tmp_path, batches, evaluate, eval_at_start=at_start, start_step=5)
  steps = [0] * at_start + [4, 8, 12]
  assert len(given) == len(steps)
  if at_start:
    for path, array in tree.flatten(bank.state.trainable).items():
      np.testing.assert_array_equal(given[0][path], array)
  lines = logs.read(tmp_path)
  losses = [x["step"] for x in lines if "training_eval/t/loss" in x]
  assert losses == [5 + step for step in steps for _ in SEEDS]
  assert not any("inference_eval" in tag for line in lines for tag in line)


def test_the_first_evaluation_is_logged_once(bank, counted_batches, tmp_path):
  """Also of a run that was killed before its first bundle."""

  def dies(*_):
    raise Killed

  for step in (dies, dies, None):
    try:
      train(
        bank,
        tmp_path,
        counted_batches(SEEDS),
        losses_from,
        step,
        eval_at_start=True,
        start_step=100,
      )
    except Killed:
      continue
  train(
    bank,
    tmp_path,
    counted_batches(SEEDS),
    losses_from,
    eval_at_start=True,
    start_step=100,
    num_steps=16,
  )
  lines = [x for x in logs.read(tmp_path) if "training_eval/t/loss" in x]
  assert [x["step"] for x in lines if x["run"] == 0] == [
    100,
    104,
    108,
    112,
    116,
  ]


def test_early_stopping_counts_evaluations(bank, counted_batches, tmp_path):
  results = iter([1.0, 3.0, 2.0, 3.0, 2.5, 9.0])

  def evaluate(_):
    score = next(results)
    return [loop.RunEvaluation(score, {}), loop.RunEvaluation(0.0, {})]

  result = train(
    bank, tmp_path, counted_batches(SEEDS), evaluate, eval_period=1, patience=3
  )
  assert result.reason == "early stopping"
  assert int(result.state.step) == 5
  assert result.best[0] == {"step": 2, "score": 3.0, "metrics": {}}
  assert bundle.steps(tmp_path / "bundles")[-1] == 5


def test_signals_save_and_end_cleanly(bank, counted_batches, tmp_path):
  calls = [0]

  def step(*args):
    calls[0] += 1
    if calls[0] == 6:
      os.kill(os.getpid(), signal.SIGTERM)
    return bank.step(*args)

  before = signal.getsignal(signal.SIGTERM)
  folder, batches = tmp_path / "a", counted_batches(SEEDS)
  result = train(bank, folder, batches, step=step)
  assert (result.reason, result.signal) == ("preempted", signal.SIGTERM)
  assert signal.getsignal(signal.SIGTERM) is before
  assert bundle.steps(tmp_path / "a" / "bundles") == [4, 6]
  train(bank, tmp_path / "a", counted_batches(SEEDS))
  train(bank, tmp_path / "b", counted_batches(SEEDS))
  last = "bundles/step_00000012"
  assert bytes_below(tmp_path / "a", last) == bytes_below(tmp_path / "b", last)


def _breaking(step, after, runs):
  """A step whose losses become NaN."""
  count = [0]

  def wrapped(*args):
    state, metrics = step(*args)
    count[0] += 1
    if count[0] > after:
      loss = np.array(metrics.sums["loss"])
      loss[list(runs)] = np.nan
      metrics = metrics._replace(sums={**metrics.sums, "loss": loss})
    return state, metrics

  return wrapped


def test_nan_stops_before_it_is_saved(bank, counted_batches, tmp_path):
  step = _breaking(bank.step, 7, (0, 1))
  with pytest.raises(loop.DivergedError, match="learning rate"):
    train(bank, tmp_path, counted_batches(SEEDS), step=step, log_period=100)
  assert bundle.steps(tmp_path / "bundles") == [4]


def test_one_lost_run_does_not_stop_the_others(
  bank, counted_batches, tmp_path, caplog
):
  step = _breaking(bank.step, 5, (1,))
  with caplog.at_level(logging.WARNING):
    result = train(bank, tmp_path, counted_batches(SEEDS), step=step)
  assert result.reason == "finished"
  assert caplog.text.count("Run 1") == 1
  assert result.diverged == [None, 6]
  # That stays so, also where later losses are finite, and without any step.
  for steps in (15, 15):
    again = train(bank, tmp_path, counted_batches(SEEDS), num_steps=steps)
    assert again.diverged == [None, 6]
  assert caplog.text.count("Run 1") == 1


def test_where_every_run_was_lost_training_ends(
  bank, counted_batches, tmp_path
):
  """A run that was lost stays lost: what it does later is no training."""
  first = _breaking(bank.step, 2, (0,))
  batches = counted_batches(SEEDS)
  train(bank, tmp_path, batches, step=first, num_steps=4)
  second = _breaking(bank.step, 0, (1,))
  with pytest.raises(loop.DivergedError, match="of all 2 runs"):
    train(bank, tmp_path, counted_batches(SEEDS), step=second)


def test_another_run_in_the_folder_is_refused(bank, counted_batches, tmp_path):
  train(bank, tmp_path, counted_batches(SEEDS))
  before = bytes_below(tmp_path, "bundles")
  with pytest.raises(ValueError, match="backbone: the bundle has 'abc'"):
    train(
      bank, tmp_path, counted_batches(SEEDS), run=RUN | {"backbone": "other"}
    )
  assert bytes_below(tmp_path, "bundles") == before


def test_a_prompt_of_another_length_is_refused(
  bank, counted_batches, tmp_path, setup, params
):
  train(bank, tmp_path, counted_batches(SEEDS))
  other = setup(params, (0, 1, 2))
  with pytest.raises(ValueError, match=r"expected float32\[3, 4, 16\]"):
    train(other, tmp_path, counted_batches((0, 1, 2)))


def test_a_full_disk_loses_nothing(
  bank, counted_batches, undisturbed, tmp_path, monkeypatch
):
  def full(number, name, path):
    return number > 40 and name == "_flush" and full_disk()

  with monkeypatch.context() as patch:
    Disk(patch, full)
    with pytest.raises(CheckpointError, match="No space left"):
      train(bank, tmp_path, counted_batches(SEEDS), scores_from)
  assert bundle.read_latest(tmp_path / "bundles") is not None
  train(bank, tmp_path, counted_batches(SEEDS), scores_from)
  assert bytes_below(tmp_path, "bundles", "best") == undisturbed


def test_the_log_repeats_no_step(bank, counted_batches, tmp_path):
  train(bank, tmp_path, counted_batches(SEEDS), num_steps=8, start_step=100)
  path = tmp_path / logs.FILE
  with path.open("a") as file:
    file.write('{"step": 111, "run": 0, "train/loss": 1.0}\n')
  # A log stops no training, whatever somebody wrote into it.
  with path.open("ab") as file:
    for line in (b"\xff\xfe", b"text", b"[1]", b'{"run": 0}', b'{"step": 1.5}'):
      file.write(line + b"\n")
    file.write(b'{"step": 7, "run": 0, "train/loss": "low"}\n{"step": 1')
  assert all("train/loss" in line for line in logs.read(tmp_path)[:6])
  train(bank, tmp_path, counted_batches(SEEDS), scores_from, start_step=100)
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  seen = [(x["step"], x["run"]) for x in lines if "train/loss" in x]
  expected = [(100 + s, r) for s in (3, 6, 8, 9, 12) for r in (0, 1)]
  assert seen == expected
  assert {
    "train/accuracy",
    "train/weight_rms",
    "train/timing/steps_per_second",
  } <= set(lines[0])
  assert any("inference_eval/t/accuracy" in x for x in lines)


def counted(batches, count):
  """Encoder and decoder tokens of some batches, one by one."""
  tokens = [0, 0]
  for _ in range(count):
    batch = next(batches)
    for i, name in enumerate(("encoder_input", "decoder_target")):
      rows = batch[f"{name}_tokens"].tolist()
      tokens[i] += sum(token != 0 for row in rows for token in row)
  return tuple(tokens)


def test_tokens_are_counted_across_processes(bank, counted_batches, tmp_path):
  expected = counted(counted_batches(SEEDS), 12)
  whole = train(bank, tmp_path / "a", counted_batches(SEEDS))
  assert whole.tokens == expected
  train(bank, tmp_path / "b", counted_batches(SEEDS), num_steps=5)
  assert train(bank, tmp_path / "b", counted_batches(SEEDS)).tokens == expected
  idle = train(bank, tmp_path / "b", counted_batches(SEEDS))
  assert idle.tokens == expected


def test_speed_is_of_training_alone(
  bank, counted_batches, tmp_path, monkeypatch
):
  """A clock that steps and evaluations set: 2 s a step, 50 s an evaluation."""
  now = [0.0]
  monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

  def step(*args):
    now[0] += 2
    return bank.step(*args)

  def evaluate(trainable):
    now[0] += 50
    return losses_from(trainable)

  settings = {"log_period": 3, "eval_period": 4, "eval_at_start": True}
  settings |= {"flops_per_token": (10.0, 100.0)}
  batches = counted_batches(SEEDS)
  train(bank, tmp_path, batches, evaluate, step, **settings)
  lines = [x for x in logs.read(tmp_path) if "train/loss" in x and not x["run"]]
  again = counted_batches(SEEDS)
  assert len(lines) == 4
  for line in lines:
    encoder, decoder = counted(again, 3)
    timing = {k.removeprefix("train/timing/"): v for k, v in line.items()}
    assert timing["seconds"] == 6
    assert timing["steps_per_second"] == 0.5
    assert timing["tokens_per_second"] == pytest.approx((encoder + decoder) / 6)
    assert timing["flops_per_second"] == pytest.approx(
      (10 * encoder + 100 * decoder) / 6
    )


def test_without_a_cost_no_operations_are_logged(
  bank, counted_batches, tmp_path
):
  train(bank, tmp_path, counted_batches(SEEDS), num_steps=3)
  tags = {tag for line in logs.read(tmp_path) for tag in line}
  assert "train/timing/tokens_per_second" in tags
  assert "train/timing/flops_per_second" not in tags


def test_tensorboard_files_are_written(bank, counted_batches, tmp_path):
  train(bank, tmp_path, counted_batches(SEEDS), tensorboard=True)
  for run in range(2):
    files = list((tmp_path / "tensorboard" / f"run_{run}").iterdir())
    assert len(files) == 1
    assert b"train/loss_per_nonpadding_target_token" in files[0].read_bytes()


@pytest.mark.parametrize(
  "change", [{"num_steps": 0}, {"log_period": 0}, {"keep": 0}]
)
def test_settings_are_checked(change):
  with pytest.raises(ValueError, match=next(iter(change))):
    settings(**change)
