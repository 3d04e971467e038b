"""Plans: the command and its advice everywhere, the compiler with libtpu."""

import dataclasses
import importlib.util
import json
import math

import jax
import pytest

from prompt_tuning.core import axes, partition, tree
from prompt_tuning.jobs.settings import Dataset, MeshShape
from prompt_tuning.jobs.train_job import from_settings
from prompt_tuning.launch import main, plan
from prompt_tuning.machine import compiled_programs
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.plans import chips, compiled_cost, report, tpu
from prompt_tuning.plans.chips import GIB
from prompt_tuning.tuners.prompt import Prompt

TASK = "taskless_super_glue_rte_v102"
SLICE = chips.parse("v5e:2x2")


def make_job(**changes):
  model = t5_config.get("t5_1_1_tiny", dropout_rate=0.0, scan_layers=True)
  settings = {
    "model_dir": "unused",
    "model": dataclasses.replace(model, vocab_size=256, relpos_buckets=4),
    "initial_checkpoint_path": None,
    "dataset": Dataset(TASK, {"inputs": 20, "targets": 8}, batch_size=8),
    "relative_steps": 1,
    "tuner": Prompt,
    "restore_dtype": "bfloat16",
    "mesh": MeshShape(None, 2),
  }
  return from_settings(**settings | changes)


def fake_plan(data, model, seconds=1.0, **changes):
  """A plan of so many seconds of arithmetic."""
  flops = seconds * SLICE.chip.flops
  settings = {
    "footprint": tpu.Footprint(1, 2, 3, 4),
    "cost": compiled_cost.Cost(flops, (), 0),
    "weights": 1.0,
  }
  return tpu.Plan(SLICE, data, model, **settings | changes)


NO_ROOM = {
  "footprint": None,
  "cost": None,
  "failure": "out of memory",
  "needed": 30 * GIB,
}


@pytest.mark.parametrize(
  ("message", "gib"),
  [
    (
      "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 43.60G "
      "of 15.75G hbm. Exceeded hbm capacity by 27.85G.",
      43.6,
    ),
    (
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
      "for HLO temporaries (1.50T) exceeds available HBM (15.75G).",
      1536,
    ),
    ("INTERNAL: Used 43.60G of 15.75G hbm.", None),
  ],
)
def test_memory_that_would_be_needed(message, gib):
  found = tpu.needed_memory(message)
  assert found == (None if gib is None else pytest.approx(gib * GIB))


def test_candidates_are_all_that_divide_the_slice():
  assert tpu.candidates(chips.parse("v5e:3x4")) == [1, 2, 3, 4, 6, 12]


def test_the_bound_is_the_slowest_of_three():
  gather = compiled_cost.Collective("all-gather", 4e9, ((0, 1),), 3, "")
  one = fake_plan(
    1,
    4,
    cost=compiled_cost.Cost(197e12 * 0.01, (gather,), 0),
    moved=819e9 * 0.02,
  )
  assert one.times["arithmetic"] == pytest.approx(0.01)
  assert one.times["memory"] == pytest.approx(0.02)
  # Half of every array is the other chip's.
  assert one.times["links"] == pytest.approx(3 * 2e9 / 200e9)
  assert one.bound == one.times["links"]


def test_best_is_the_fastest_that_fits():
  plans = [
    fake_plan(4, 1, **NO_ROOM),
    fake_plan(2, 2, seconds=0.3),
    fake_plan(1, 4, seconds=0.2),
  ]
  assert tpu.best(plans) is plans[2]
  assert tpu.best(plans[:1]) is None


def test_of_equally_fast_plans_the_one_that_sends_less_is_best():
  gather = compiled_cost.Collective("all-gather", 4e9, ((0, 1),), 3, "")
  quiet = fake_plan(4, 1, footprint=tpu.Footprint(1, 2, 9, 10))
  flops = SLICE.chip.flops * 0.9999
  busy = fake_plan(2, 2, cost=compiled_cost.Cost(flops, (gather,), 0))
  assert tpu.best([busy, quiet]) is quiet


@pytest.mark.parametrize(
  ("changes", "weights", "first"),
  [
    ({}, 1 * GIB, "SCAN_LAYERS = True, REMAT = 'full'"),
    ({}, 20 * GIB, "meshes/fully_sharded.gin"),
    ({"restore_dtype": "float32"}, 20 * GIB, "RESTORE_DTYPE = 'bfloat16'"),
  ],
)
def test_advice_begins_with_what_costs_least(changes, weights, first):
  text = report.advice(
    make_job(**changes), SLICE, [fake_plan(4, 1, weights=weights, **NO_ROOM)]
  )
  step = text.removeprefix("Try, in this order: ").split("; ")[0]
  assert first in step
  assert "larger slice" in text


def test_one_chip_is_not_told_to_split_weights():
  one = chips.parse("v5e:1x1")
  plans = [fake_plan(1, 1, weights=20 * GIB, **NO_ROOM)]
  assert "fully_sharded" not in report.advice(make_job(), one, plans)


def test_weights_that_train_are_not_to_be_rounded():
  job = make_job(restore_dtype="float32")
  plan = fake_plan(4, 1, weights=20 * GIB, **NO_ROOM)
  tuned = dataclasses.replace(plan, trains_model=True)
  assert "RESTORE_DTYPE" in report.advice(job, SLICE, [plan])
  assert "RESTORE_DTYPE" not in report.advice(job, SLICE, [tuned])


def test_advice_names_nothing_that_is_done_already():
  model = dataclasses.replace(make_job().experiment.model, remat_policy="full")
  job = make_job(
    model=model,
    mesh=MeshShape(None, 2, axes.FULLY_SHARDED_RULES),
    restore_dtype="int8",
  )
  text = report.advice(
    job, SLICE, [fake_plan(4, 1, weights=9 * GIB, **NO_ROOM)]
  )
  for done in ("REMAT", "fully_sharded", "RESTORE_DTYPE"):
    assert done not in text
  assert "BATCH_SIZE below 8" in text


def test_advice_where_no_mesh_can_be_is_not_about_memory():
  cannot = {"footprint": None, "cost": None, "failure": "cannot split"}
  plans = [fake_plan(4, 1, weights=0.0, **cannot)]
  text = report.advice(make_job(), SLICE, plans)
  assert "BATCH_SIZE" in text
  assert "smaller slice" in text
  assert "NUM_MICROBATCHES" not in text


def _cannot_split(ways):
  """What the axis rules say of a mesh that does not divide the tiny model."""
  mesh = jax.sharding.AbstractMesh((1, ways), (axes.DATA, axes.MODEL))
  model = make_job().experiment.model
  with pytest.raises(ValueError, match="evenly") as caught:
    axes.restore_target(
      network.abstract_params(model),
      network.logical_axes(model),
      mesh,
      axes.STANDARD_RULES,
      None,
    )
  return str(caught.value)


def test_a_mesh_that_cannot_split_the_model_takes_one_line():
  full = _cannot_split(3)
  _, first, *others = full.splitlines()
  assert len(others) > 2
  gone = {"footprint": None, "cost": None, "weights": 0.0}
  plans = [
    fake_plan(4, 1, **gone, failure="A batch of 2 rows."),
    fake_plan(2, 2, **gone, failure="Too uneven:\n  a: 1"),
    fake_plan(1, 4, **gone, failure=full),
  ]
  text = report.lines(make_job(), SLICE, plans)
  # Chips, the header, and for each mesh a row and why it cannot be; advice.
  assert len(text) == 2 + 2 * len(plans) + 1
  assert not any("\n" in line for line in text)
  assert text[5] == "  4 x 1: A batch of 2 rows."
  assert text[6] == "  2 x 2: Too uneven: a: 1"
  assert text[7].endswith(f": {first.strip()}, and {len(others)} more")
  found = report.as_json(make_job(), SLICE, plans)
  assert found["plans"][2]["failure"] == full


def test_one_is_singular():
  plans = [fake_plan(1, 1, cost=compiled_cost.Cost(1.0, (), 1))]
  text = report.lines(make_job(), chips.parse("v5e:1x1"), plans)
  assert text[0].startswith("v5e:1x1: 1 chip, ")
  assert "  1 loop of unknown length" in text[-2]
  assert text[-1].startswith("  Rates of the chip: https://")
  assert report.lines(make_job(), SLICE, plans)[0].startswith(
    "v5e:2x2: 4 chips, "
  )


FLAGS = [
  "--gin_file=models/t5_1_1_tiny_prompt.gin",
  "--gin_file=runs/prompt_finetune.gin",
  "--gin_file=meshes/data.gin",
  f"--gin.MIXTURE_OR_TASK_NAME='{TASK}'",
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 20, 'targets': 8}",
  "--gin.TRAIN_STEPS=1",
]


@pytest.fixture
def planned(monkeypatch):
  """Answer without a compiler; only the last mesh of a slice fits."""
  tried = []

  def answer(job, where, model):
    tried.append((str(where), model))
    data = where.count // model
    fits = data == 1
    return fake_plan(data, model, **{} if fits else NO_ROOM)

  monkeypatch.setattr(tpu, "plan", answer)
  return tried


def test_command_tries_every_mesh_of_every_slice(planned, capsys):
  flags = ["--topology=v5e:1x2", "--topology", "v5e:2x2", *FLAGS]
  assert plan.main(flags) == 0
  assert planned == [
    ("v5e:1x2", 1),
    ("v5e:1x2", 2),
    ("v5e:2x2", 1),
    ("v5e:2x2", 2),
    ("v5e:2x2", 4),
  ]
  text = capsys.readouterr().out
  assert "30.00 GiB" in text
  assert "cheapest: 1 x 4, at least 1e+03 ms" in text


def test_command_plans_several_slices(monkeypatch, capsys):
  """Each has the whole model, and one thousandth of a step's bytes goes out."""
  tried = []

  def answer(job, where, model):
    tried.append((where.copies, where.count, model))
    cost = compiled_cost.Cost(1e12, (), 0, to_slices=12_800.0)
    one = fake_plan(where.count // model, model, cost=cost)
    return dataclasses.replace(one, slice=where)

  monkeypatch.setattr(tpu, "plan", answer)
  flags = [*FLAGS, "--topology=v5e:2x2", "--num_slices=2"]
  assert plan.main(flags) == 0
  assert tried == [(2, 8, 1), (2, 8, 2), (2, 8, 4)]
  text = capsys.readouterr().out
  assert "2 slices of v5e:2x2: 8 chips" in text
  assert "over the data center's network: 12.5 KiB from a chip" in text

  assert plan.main([*flags, "--json", "--meshes=first"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert (found["slices"], found["chips"]) == (2, 8)
  # A chip's share of v5e's network is 3.125 GB a second.
  network = found["plans"][0]["at_least"]["network"]
  assert network == pytest.approx(12_800 / 3.125e9)


def test_command_plans_the_given_mesh_only(planned, capsys):
  flags = [*FLAGS, "--topology=v5e:2x2", "--meshes=given", "--json"]
  assert plan.main(flags) == 1
  assert planned == [("v5e:2x2", 1)]
  (line,) = capsys.readouterr().out.splitlines()
  found = json.loads(line)
  assert found["best"] is None
  assert "REMAT" in found["advice"]
  assert found["plans"][0]["needed"] == 30 * GIB


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    ([], "--topology"),
    (["--topology=v5e:2x2", "--meshes=some"], "all, first, given"),
    (["--topology=v9:2x2"], "unknown TPU"),
    (["--cheapest", "--topology=v5e:2x2"], "leave --topology out"),
    (["--cheapest", "--num_slices=2"], "leave --num_slices out"),
    (["--topology=v5e:2x2", "--num_slices=0"], "at least 1"),
    (["--cheapest", "--price=v5e"], "such as v5e=1.2"),
    (["--cheapest", "--price=v9=1"], "Known: v4"),
    (["--topology=v5e:2x2", "--topolgy=v5e"], "Unknown argument"),
    (
      [
        "--topology=v5e:2x2",
        "--meshes=given",
        "--gin.meshes.Mesh.model=3",
      ],
      "does not divide",
    ),
  ],
)
def test_command_says_what_is_wrong(planned, capsys, flags, says):
  assert plan.main([*FLAGS, *flags]) == 2
  assert says in capsys.readouterr().err
  assert not planned


def test_cheapest_takes_the_smallest_slice_of_each_generation(
  monkeypatch, capsys
):
  """A chip of v6e does 1,000 steps of its peak second for 0.75 dollars."""
  tried = []

  def answer(job, where, model):
    tried.append(str(where))
    fits = where.count * where.chip.memory > 60 * GIB
    room = {} if fits else NO_ROOM
    one = fake_plan(where.count // model, model, **room)
    return dataclasses.replace(one, slice=where)

  monkeypatch.setattr(tpu, "plan", answer)
  flags = [*FLAGS, "--cheapest", "--meshes=first"]
  assert plan.main(flags) == 0
  assert {"v5e:2x2", "v5p:1x1x1"} <= set(tried)
  assert not {"v5e:2x4", "v5p:2x2x1"} & set(tried)
  text = capsys.readouterr().out.splitlines()
  start = next(i for i, line in enumerate(text) if "Cheapest: " in line)
  assert text[start] == "Cheapest: v5p:1x1x1. 1,000 steps take at least:"
  seconds = SLICE.chip.flops / chips.CHIPS["v5p"].flops
  assert f"{seconds * 1000 / 3600 * 4.2:.3f} dollars" in text[start + 1]

  assert plan.main([*flags, "--price", "v5p=999", "--json"]) == 0
  last = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert last["cheapest"] == "v6e:2x2"
  assert [one["topology"] for one in last["offers"]][-1] == "v5p:1x1x1"


def test_command_keeps_no_programs(planned, monkeypatch):
  """JAX cannot read what it compiled for chips that are not here."""
  kept = []
  monkeypatch.setattr(compiled_programs, "keep", lambda: kept.append(True))
  assert plan.main([*FLAGS, "--topology=v5e:2x2"]) == 0
  assert planned
  assert not kept


def test_plan_is_a_command(capsys):
  assert main.main(["plan", "--topology=v9:2x2", *FLAGS]) == 2
  assert "unknown TPU" in capsys.readouterr().err


def test_without_libtpu_the_error_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  assert plan.main([*FLAGS, "--topology=v5e:2x2"]) == 2
  assert "prompt-tuning[plan]" in capsys.readouterr().err


def _model_bytes(config, ways):
  shapes = tree.flatten(network.abstract_params(config)).values()
  return sum(2 * math.prod(leaf.shape) for leaf in shapes) / ways


@pytest.fixture
def libtpu():
  """The TPU compiler; `pip install 'prompt-tuning[plan]'`."""
  return pytest.importorskip("libtpu")


# Sums of the loss; where weights are split over chips with different rows, also
# every layer's norms: two scales of the encoder's and three of the decoder's
# are gathered by adding up each chip's slice among zeros.
@pytest.mark.parametrize(
  ("rules", "sums"),
  [(axes.STANDARD_RULES, 64), (axes.FULLY_SHARDED_RULES, 512)],
  ids=["standard", "fully sharded"],
)
def test_no_weight_gradient_crosses_chips_in_prompt_tuning(libtpu, rules, sums):
  job = make_job(mesh=MeshShape(None, 2, rules))
  prompt = tpu.plan(job, SLICE, 2)
  assert prompt.fits
  assert 0 < prompt.bound < 1
  reduced = report.data_reductions(prompt)
  # The prompt [100, 4] in float32.
  gradient = 100 * 4 * 4
  nbytes = sum(one.times * one.nbytes for one in reduced)
  assert gradient <= nbytes <= gradient + sums


def test_no_weight_gradient_is_computed_where_weights_are_split(libtpu):
  """So none is among what a fully sharded step sends by permutes."""
  split = MeshShape(None, 2, axes.FULLY_SHARDED_RULES)
  whole, sharded, tuned = (
    tpu.plan(job, SLICE, 2).cost.flops
    for job in (
      make_job(),
      make_job(mesh=split),
      make_job(mesh=split, rules=partition.EVERYTHING),
    )
  )
  assert sharded == whole
  assert tuned > 1.2 * sharded


def test_gradients_are_not_sent_round_in_prompt_tuning(libtpu):
  """A TPU also adds up parts of large products while they are passed on."""
  prompt = tpu.plan(make_job(), SLICE, 2)
  kinds = {one.kind for one in prompt.cost.collectives}
  assert kinds
  assert compiled_cost.PERMUTE not in kinds


def test_of_a_prompt_its_gradient_alone_goes_to_other_slices(libtpu):
  """Weights are split over the chips of each slice, and stay there.

  The table is larger than what is looked up in it, as it is in T5; the compiler
  would gather a smaller one, over all slices.
  """
  slices = dataclasses.replace(SLICE, copies=2)
  sizes = {"vocab_size": 8_192, "emb_dim": 128, "relpos_buckets": 4}
  model = t5_config.get("t5_1_1_tiny", scan_layers=True, **sizes)
  split = MeshShape(None, 2, axes.FULLY_SHARDED_RULES)
  found = tpu.plan(make_job(model=model, mesh=split), slices, 2)
  assert (found.data, found.times["network"] > 0) == (4, True)
  gradient = 100 * 128 * 4
  # Half of a prompt's 100 vectors is sent as 56, and sums as 128 numbers.
  assert gradient <= found.cost.to_slices <= gradient * 1.12 + 512


def test_bytes_of_a_program_add_up(libtpu):
  found = tpu.plan(make_job(), SLICE, 1)
  held = found.footprint
  assert found.weights + held.trained <= held.arguments
  # Attention's logits of a chip's rows, with the prompt before 20 tokens.
  logits = 2 * (8 // 4) * make_job().experiment.model.num_heads * 120 * 120
  assert logits < held.temporaries
  assert held.arguments + held.temporaries <= held.total
  assert held.total < SLICE.chip.memory


def test_weight_gradients_cross_chips_in_model_tuning(libtpu):
  tuned = make_job(tuner=None, rules=partition.EVERYTHING, learning_rates=1e-3)
  found = tpu.plan(tuned, SLICE, 2)
  assert found.trains_model
  reduced = report.data_reductions(found)
  # Kernels are split over two chips, and every one has a gradient.
  nbytes = sum(one.times * one.nbytes for one in reduced)
  assert nbytes > 0.9 * _model_bytes(tuned.experiment.model, 2)


def test_what_does_not_fit_is_a_verdict(libtpu):
  rows = Dataset(TASK, {"inputs": 4_000, "targets": 8}, batch_size=4_096)
  found = tpu.plan(make_job(dataset=rows), chips.parse("v5e:1x1"), 1)
  assert not found.fits
  assert found.needed > found.slice.chip.memory


def test_weights_that_cannot_fit_are_not_compiled(libtpu):
  job = make_job(model=t5_config.get("t5_1_1_xxl", scan_layers=True))
  found = tpu.plan(job, SLICE, 1)
  assert found.failure == "weights alone do not fit"
  assert found.weights == pytest.approx(_model_bytes(job.experiment.model, 1))
  assert not found.trains_model


def test_a_mesh_that_cannot_be_is_no_error(libtpu):
  found = tpu.plan(make_job(), SLICE, 4)
  assert "cannot split" in found.failure
  assert not found.fits
