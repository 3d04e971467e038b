import pytest

from prompt_tuning.plans import chips


@pytest.mark.parametrize(
  ("text", "count"), [("v5e:4x8", 32), ("v5p:2x2x1", 4), ("v6e:1x1", 1)]
)
def test_slices_are_read_and_written_alike(text, count):
  found = chips.parse(text)
  assert str(found) == text
  assert found.count == count


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("v5x:2x2", "Did you mean 'v5"),
    ("v5e:2x2x2", "v5e:4x4"),
    ("v5p:2x2", "v5p:4x4x4"),
    ("v5e", "v5e:4x4"),
    ("v5e:0x4", "v5e:4x4"),
    ("v5e:axb", "v5e:4x4"),
  ],
)
def test_what_is_no_slice_says_what_would_be(text, says):
  with pytest.raises(ValueError, match=says):
    chips.parse(text)
