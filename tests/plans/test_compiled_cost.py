"""Counts against formulas: of programs that XLA compiled, and of TPU text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from prompt_tuning.core import axes
from prompt_tuning.plans import compiled_cost, hlo

LAYERS, ROWS, WIDTH, INNER = 5, 16, 24, 40


def _layers(x, kernels):
  def layer(x, kernel):
    first, second = kernel
    return (x @ first) @ second, None

  return jax.lax.scan(layer, x, kernels)[0]


def _read(function, *args, count=1):
  return compiled_cost.read(
    jax.jit(function).lower(*args).compile().as_text(), count
  )


def _kernels(first=None, second=None):
  return (
    jax.ShapeDtypeStruct((LAYERS, WIDTH, INNER), jnp.float32, sharding=first),
    jax.ShapeDtypeStruct((LAYERS, INNER, WIDTH), jnp.float32, sharding=second),
  )


def test_a_scanned_body_counts_as_often_as_it_runs():
  x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
  cost = _read(_layers, x, _kernels())
  assert cost.flops == LAYERS * 2 * (2 * ROWS * WIDTH * INNER)
  assert cost.collectives == ()
  assert cost.unknown_loops == 0


def test_collectives_of_a_model_split_over_chips():
  mesh = axes.make_mesh(2, 4)

  def where(*spec):
    return NamedSharding(mesh, PartitionSpec(*spec))

  x = jax.ShapeDtypeStruct(
    (ROWS, WIDTH), jnp.float32, sharding=where("data", None)
  )
  kernels = _kernels(where(None, None, "model"), where(None, "model", None))
  cost = _read(_layers, x, kernels, count=8)
  assert cost.flops == LAYERS * 2 * (2 * ROWS * WIDTH * INNER) / 8
  (one,) = cost.collectives
  assert one.kind == compiled_cost.ALL_REDUCE
  assert one.times == LAYERS
  assert one.nbytes == ROWS / 2 * WIDTH * 4
  # A ring of 4: every chip sends 3/4 of the array, twice.
  assert one.sent == LAYERS * one.nbytes * 2 * 3 / 4
  assert one.crosses(1, (2, 4))
  assert not one.crosses(0, (2, 4))


def test_gradients_of_weights_are_reduced_over_the_data_axis():
  mesh = axes.make_mesh(8, 1)
  x = jax.ShapeDtypeStruct(
    (ROWS, WIDTH),
    jnp.float32,
    sharding=NamedSharding(mesh, PartitionSpec("data")),
  )
  everywhere = NamedSharding(mesh, PartitionSpec())
  kernels = _kernels(everywhere, everywhere)

  def loss(x, kernels):
    return jnp.sum(_layers(x, kernels) ** 2)

  cost = _read(jax.grad(loss, argnums=1), x, kernels, count=8)
  reduced = [c for c in cost.collectives if c.crosses(0, (8, 1))]
  weights = 2 * LAYERS * WIDTH * INNER * 4
  assert sum(c.times * c.nbytes for c in reduced) == weights
  frozen = _read(jax.grad(loss, argnums=0), x, kernels, count=8)
  assert frozen.collectives == ()


def _product(line, **shapes):
  operands = [
    f"  %{name} = bf16[{','.join(map(str, shape))}] parameter(0)"
    for name, shape in shapes.items()
  ]
  body = "\n".join([*operands, f"  {line}"])
  program = hlo.parse(f"ENTRY %main () -> x {{\n{body}\n}}")
  found = program.computations["main"]
  return compiled_cost.product_flops(found["c"], found)


@pytest.mark.parametrize(
  ("line", "left", "right", "expected"),
  [
    (  # x @ kernel of [B, T, H] with [H, F]
      "%c = bf16[16,128,40] convolution(%a, %b), window={size=1}, "
      "dim_labels=0bf_io0->0bf",
      [16, 128, 24],
      [24, 40, 1],
      2 * 16 * 128 * 24 * 40,
    ),
    (  # bqd,bsd->bqs; the batch is written as a dilated window
      "%c = bf16[16,128,96] convolution(%a, %b), window={size=16 stride=15 "
      "lhs_dilate=16}, dim_labels=0bf_0oi->0bf",
      [16, 128, 2],
      [16, 96, 2],
      2 * 16 * 128 * 96 * 2,
    ),
    (  # a sum over a dimension that is written as the window
      "%c = f32[1,24,40] convolution(%a, %b), window={size=16}, "
      "dim_labels=0bf_0io->0bf",
      [16, 24, 8],
      [16, 8, 40],
      2 * 16 * 24 * 8 * 40,
    ),
    (
      "%c = f32[3,5] dot(%a, %b), lhs_contracting_dims={1}, "
      "rhs_contracting_dims={0}",
      [3, 7],
      [7, 5],
      2 * 3 * 5 * 7,
    ),
  ],
)
def test_operations_of_products_as_tpus_write_them(line, left, right, expected):
  assert _product(line, a=left, b=right) == expected


TPU_LOOP = """HloModule step

%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %p = (s32[]{:T(128)}, bf16[8,4]{1,0}) parameter(0)
  %x = bf16[8,4]{1,0} get-tuple-element(%p), index=1
  %s = bf16[8,4]{1,0} all-reduce(%x), channel_id=1, \
replica_groups=[2,2]<=[4], to_apply=%add, metadata={op_name="jit(step)/out"}
  %g = (bf16[8,4], bf16[16,4]) all-gather-start(%s), channel_id=2, \
replica_groups=[2,2]<=[4]
  %h = bf16[16,4] all-gather-done(%g)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %t = (s32[], bf16[8,4]) tuple(%i, %s)
}

%condition (q: (s32[], bf16[8,4])) -> pred[] {
  %n = s32[]{:T(128)} constant(24)
  %q = (s32[], bf16[8,4]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%j, %n), direction=LT
}

%all-reduce-scatter (x: f32[16]) -> f32[4] {
  %x = f32[16] parameter(0)
  %r = f32[16] all-reduce(%x), channel_id=3, replica_groups={{0,1,2,3}}
  ROOT %cut = f32[4] dynamic-slice(%r)
}

ENTRY %main (a: bf16[8,4]) -> bf16[8,4] {
  %a = bf16[8,4] parameter(0)
  %z = f32[16] constant({...})
  %f = f32[4] fusion(%z), kind=kCustom, calls=%all-reduce-scatter
  %alone = f32[4] all-reduce(%f), channel_id=4, replica_groups={{0},{1},{2},{3}}
  %w = (s32[], bf16[8,4]) while(%a), condition=%condition, body=%body
  ROOT %out = bf16[8,4] get-tuple-element(%w), index=1
}
"""


def test_collectives_as_tpus_write_them():
  cost = compiled_cost.read(TPU_LOOP, 4)
  assert cost.unknown_loops == 0
  assert cost.by_kind() == {
    compiled_cost.ALL_REDUCE: (24, 24 * 8 * 4 * 2),
    compiled_cost.ALL_GATHER: (24, 24 * 16 * 4 * 2),
    compiled_cost.REDUCE_SCATTER: (1, 64),
  }
  assert {c.source for c in cost.collectives} == {"", "jit(step)/out"}


def test_what_goes_to_other_slices_as_tpus_write_it():
  """A message to the host, here in a loop; others are none."""
  message = (
    "  %m = (bf16[8,4]{1,0:T(8,128)}, u32[], token[]) send(%x, %after), "
    "channel_id=9, is_host_transfer=true, frontend_attributes="
    '{_xla_host_transfer_handler_name="HANDLER"}\n  %s = bf16'
  )
  for handler, nbytes in (("xla_megascale_runtime", 24 * 64), ("other", 0)):
    text = TPU_LOOP.replace("  %s = bf16", message, 1)
    cost = compiled_cost.read(text.replace("HANDLER", handler), 4)
    assert cost.to_slices == nbytes
    assert cost.by_kind() == compiled_cost.read(TPU_LOOP, 4).by_kind()


def test_a_loop_of_unknown_length_is_counted_once_and_said():
  text = TPU_LOOP.replace("direction=LT", "direction=NE")
  cost = compiled_cost.read(text, 4)
  assert cost.unknown_loops == 1
  assert cost.by_kind()[compiled_cost.ALL_REDUCE] == (1, 64)


def test_a_loop_that_xla_unrolled_runs_less_often():
  """Its body has the work of several rounds, and its counter skips them."""
  text = TPU_LOOP.replace(
    "ROOT %t = (s32[], bf16[8,4]) tuple(%i, %s)",
    "%more = s32[] constant(STRIDE)\n  %next = s32[] add(%i, %more)\n"
    "  ROOT %t = (s32[], bf16[8,4]) tuple(%next, %s)",
  )
  for stride, times in ((1, 24), (2, 12), (5, 5)):
    cost = compiled_cost.read(text.replace("STRIDE", str(stride)), 4)
    assert cost.by_kind()[compiled_cost.ALL_REDUCE] == (times, times * 64)


def test_work_in_several_pieces_of_a_collective_counts_once():
  line = "  %f = f32[4] fusion(%z), kind=kCustom, calls=%all-reduce-scatter\n"
  twice = TPU_LOOP.replace(line, line + line.replace("%f", "%f2"))
  again = TPU_LOOP.replace(
    "  %cut = f32[4]",
    "  %again = f32[16] all-reduce(%x), channel_id=3, "
    "replica_groups={{0,1,2,3}}\n  %cut = f32[4]",
  )
  assert compiled_cost.read(again, 4).by_kind() == (
    compiled_cost.read(TPU_LOOP, 4).by_kind()
  )
  assert compiled_cost.read(twice, 4).by_kind()["reduce-scatter"][0] == 2


def test_arrays_that_are_gathered_together_all_count():
  line = "  %g = (bf16[8,4], bf16[16,4]) all-gather-start(%s), channel_id=2"
  both = (
    "  %k = f32[10,4] constant({...})\n"
    "  %g = ((bf16[8,4], f32[10,4]), (bf16[16,4], f32[20,4])) "
    "all-gather-start(%s, %k), channel_id=2"
  )
  assert line in TPU_LOOP
  cost = compiled_cost.read(TPU_LOOP.replace(line, both), 4)
  nbytes = 16 * 4 * 2 + 20 * 4 * 4
  assert cost.by_kind()[compiled_cost.ALL_GATHER] == (24, 24 * nbytes)


def test_pieces_that_are_called_twice_count_no_more():
  """As XXL's model tuning on v5e:2x4 has them."""
  piece = """%later (l: f32[16]) -> f32[16] {
  %l = f32[16] parameter(0)
  ROOT %r2 = f32[16] all-reduce(%l), channel_id=3, replica_groups={{0,1,2,3}}
}

ENTRY"""
  calls = "".join(
    f"  %{name} = f32[16] fusion(%z), kind=kCustom, calls=%later\n"
    for name in ("start", "end")
  )
  text = TPU_LOOP.replace("ENTRY", piece, 1).replace(
    "  %w = ", calls + "  %w = "
  )
  assert compiled_cost.read(text, 4) == compiled_cost.read(TPU_LOOP, 4)


BRANCHES = """%yes (y: bf16[8,4]) -> bf16[8,4] {
  %y = bf16[8,4] parameter(0)
  %q = bf16[8,4] collective-permute(%y), channel_id=7, \
source_target_pairs={{0,1},{1,0}}
  ROOT %d = bf16[8,8] dot(%q, %q), lhs_contracting_dims={1}
}

%NO (n: bf16[8,4]) -> bf16[8,4] {
  ROOT %n = bf16[8,4] parameter(0)
}

%body"""
CONDITIONAL = (
  "%c = bf16[8,4] conditional(%more, %s, %s), true_computation=%yes, "
  "false_computation=%NO\n"
)


@pytest.mark.parametrize(
  ("name", "times"), [("otherwise", 24), ("last_iteration_noop.3", 23)]
)
def test_branches_count_but_for_a_loop_s_last_round(name, times):
  """A TPU passes parts of a kernel on while it multiplies, but not the last."""
  text = TPU_LOOP.replace("%body", BRANCHES, 1).replace(
    "  %g = ", f"  {CONDITIONAL}  %g = "
  )
  cost = compiled_cost.read(text.replace("%NO", f"%{name}"), 4)
  assert cost.by_kind()[compiled_cost.PERMUTE] == (times, times * 64)
  assert cost.flops == times * 2 * 8 * 8 * 4


def test_xla_counts_a_scanned_body_once():
  """Why this module exists: should it fail, XLA has learnt to count."""
  x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
  compiled = jax.jit(_layers).lower(x, _kernels()).compile()
  said = compiled.cost_analysis()["flops"]
  counted = compiled_cost.read(compiled.as_text(), 1).flops
  np.testing.assert_array_less(said, counted / 2)
