"""What experiments/plans found, and what its README shows of it."""

import copy
import json
import pathlib
import subprocess

import pytest

from experiments.plans import run, small_chips
from prompt_tuning.models.t5 import config as t5_config

FOLDER = pathlib.Path(run.__file__).parent
RESULTS = json.loads((FOLDER / "results.json").read_text())
SMALL = json.loads((FOLDER / "small_chips.json").read_text())


def chosen_of(results, key):
  """The mesh that fits on the smallest slice."""
  return next(plan for plan in results[key]["plans"] if plan["fits"])


def test_every_size_generation_and_method_was_planned():
  wanted = {
    f"{size}/{method}/{generation}"
    for size in run.SIZES
    for method in run.METHODS
    for generation in run.GENERATIONS
  }
  assert set(RESULTS) == wanted


@pytest.mark.parametrize("key", [*RESULTS, *SMALL])
def test_what_is_called_fitting_fits(key):
  answer = (RESULTS | SMALL)[key]
  plan = next(plan for plan in answer["plans"] if plan["fits"])
  assert plan["weights"] <= plan["arguments"]
  assert plan["arguments"] + plan["temporaries"] <= plan["total"]
  assert plan["total"] <= answer["memory"]
  assert not plan["unknown_loops"]


@pytest.mark.parametrize("key", [key for key in RESULTS if "/prompt/" in key])
def test_no_weight_gradient_crosses_chips_in_prompt_tuning(key):
  """Of rows on different chips: the prompt's gradient, sums of the loss."""
  run.refuse_weight_gradients(key.split("/")[0], RESULTS[key])


@pytest.mark.parametrize("by", ["all-reduce", "collective-permute"])
def test_a_weight_gradient_is_refused_when_a_plan_is_made(monkeypatch, by):
  """XXL's stored plan, with the gradient of one layer's norm besides."""
  answer = copy.deepcopy(RESULTS["xxl/prompt/v5e"])
  (plan,) = (plan for plan in answer["plans"] if plan["fits"])
  assert plan["data"] > 1
  if by == "all-reduce":
    plan["reduced_over_data"] += 4_096 * 4
  else:
    plan["collectives"][by] = {"count": 1, "bytes": 4_096 * 4}
  done = subprocess.CompletedProcess([], 0, stdout=json.dumps(answer))
  monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
  with pytest.raises(RuntimeError, match="the prompt's gradient"):
    run.smallest("xxl", "prompt", "v5e")
  assert run.smallest("xxl", "model", "v5e") == answer


def test_readme_shows_the_results():
  assert run.table(RESULTS) in (FOLDER / "README.md").read_text()


def test_readme_shows_what_fits_on_small_chips():
  assert small_chips.table(SMALL) in (FOLDER / "README.md").read_text()


def test_every_row_of_the_small_chips_was_planned():
  rows = [row.key for row in small_chips.rows()]
  assert len(set(rows)) == len(rows)
  assert set(SMALL) == set(rows)


def test_readme_s_words_are_true_of_the_small_chips():
  def total(key):
    return chosen_of(SMALL, key)["total"] / run.GIB

  def at_once(key):
    return 64 // SMALL[key]["microbatches"]

  banks = {"v5p:1x1x1": 64, "v5e:2x2": 32, "v6e:1x1": 16}
  for where, rows in banks.items():
    assert at_once(f"xxl/bank of 16/{where}") == rows
    assert chosen_of(SMALL, f"xxl/bank of 16/{where}")["trained"] < 53e6
  assert round(total("xxl/fully sharded/v5e:2x2"), 1) == 7.4
  for size in ("small", "base", "large", "xl"):
    alone = chosen_of(RESULTS, f"{size}/prompt/v5e")["total"] / run.GIB
    assert 0.2 < total(f"{size}/fully sharded/v5e:2x2") / alone < 0.3
  gathered = chosen_of(SMALL, "xxl/fully sharded/v5e:2x2")["collectives"]
  assert round(gathered["all-gather"]["bytes"] / run.GIB) == 35


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_xxl_fits_on_one_v5e(scheme):
  """15.75 GiB, of which its weights in bfloat16 alone would take 20.7."""
  answer = SMALL[f"xxl/{scheme} weights/v5e:1x1"]
  assert (answer["chips"], answer["memory"]) == (1, 15.75 * run.GIB)
  assert answer["best"] == [1, 1]


@pytest.mark.parametrize("key", SMALL)
def test_prompts_on_small_chips_send_no_weight_gradients(key):
  """The prompts' own are summed in each microbatch, whose rows are brought.

  Norms that are split are brought by adding them up, too.
  """
  size, what, _ = key.split("/")
  runs = small_chips.BANK if what.startswith("bank") else 1
  pieces = SMALL[key]["microbatches"]
  rows = 64 if pieces > 1 else 0
  tokens = 4 * rows * (512 + 100 + 4 * 16)  # inputs, and arrays of targets
  config = t5_config.get(f"t5_1_1_{size}")
  layers = 2 * config.num_encoder_layers + 3 * config.num_decoder_layers
  norms = 4 * (layers + 2) * config.emb_dim if what == "fully sharded" else 0
  most = pieces * runs * run.most_reduced(size) + tokens + norms
  for plan in SMALL[key]["plans"]:
    if plan["fits"]:
      assert plan["reduced_over_data"] <= most


def test_slices_that_weights_alone_fill_are_not_tried():
  # 11 billion parameters of eight bytes are 83 GiB: more than four v5e have.
  assert run.topologies("xxl", "model", "v5e")[0] == "v5e:2x4"
  assert run.topologies("small", "prompt", "v5p")[0] == "v5p:1x1x1"
