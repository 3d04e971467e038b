import pytest

from prompt_tuning.plans import hlo

# Every way in which XLA writes the devices of a collective, with the groups
# that its documentation says are meant.
GROUPS = {
  "replica_groups={{0,2},{1,3}}, use_global_device_ids=true": [[0, 2], [1, 3]],
  "replica_groups=[2,2]<=[4], to_apply=%add": [[0, 1], [2, 3]],
  "replica_groups=[2,2]<=[2,2]T(1,0), to_apply=%add": [[0, 2], [1, 3]],
  "replica_groups={}, to_apply=%add": [[0, 1, 2, 3]],
  "replica_groups=mesh['a'=2,'b'=1,'c'=2] {'c'}, to_apply=%add": [
    [0, 1],
    [2, 3],
  ],
  "replica_groups=mesh['a'=2,'b'=1,'c'=2] {'a'}, to_apply=%add": [
    [0, 2],
    [1, 3],
  ],
  "replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}, x=%y": [
    [0, 1],
    [2, 3],
  ],
}


@pytest.mark.parametrize("text", GROUPS)
def test_devices_that_exchange(text):
  assert hlo.replica_groups(text, 4) == GROUPS[text]


def test_unknown_devices_are_refused():
  with pytest.raises(ValueError, match="Unknown way"):
    hlo.replica_groups("replica_groups=everyone, to_apply=%add", 4)


def test_instructions_of_a_tuple_with_layouts():
  text = """HloModule m

ENTRY %main (p: f32[2,3]) -> (f32[2,3], bf16[4]) {
  %p = f32[2,3]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %c = s32[]{:T(128)} constant(24)
  ROOT %r = (f32[2,3]{1,0:T(8,128)}, /*index=1*/bf16[4]{0}) thing(%p, %c), \
calls=%other, metadata={op_name="a(b)/c"}
}
"""
  program = hlo.parse(text)
  found = program.computations[program.entry]
  assert found["r"].arrays == (
    hlo.Array("f32", (2, 3)),
    hlo.Array("bf16", (4,)),
  )
  assert [array.nbytes for array in found["r"].arrays] == [24, 8]
  assert found["r"].operands == ("p", "c")
  assert found["r"].called("calls") == "other"
  assert found["r"].is_root
  assert found["c"].literal == "24"


def test_what_is_no_program_is_refused():
  with pytest.raises(ValueError, match="not a program"):
    hlo.parse("hello")
