"""The naming scheme of the original: prefixes and suffixes of a task's name."""

from collections.abc import Iterator

# Without its name in front of the text ("taskless"), the published choice; and
# with sample texts logged ("_examples").
PREFIXES = ("", "taskless_")
SUFFIXES = ("", "_examples")


def variants() -> Iterator[tuple[str, str]]:
  """Return every (prefix, suffix) pair."""
  return ((prefix, suffix) for prefix in PREFIXES for suffix in SUFFIXES)
