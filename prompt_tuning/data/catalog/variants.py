"""The naming scheme of the original: prefixes and suffixes of a task's name."""

from collections.abc import Iterable, Iterator, Sequence

# Without its name in front of the text ("taskless"), the published choice; with
# a sentinel of its own in place of it ("task_index"); and with sample texts
# logged ("_examples").
TASKLESS, TASK_INDEX = "taskless_", "task_index_"
PREFIXES = ("", TASKLESS, TASK_INDEX)
SUFFIXES = ("", "_examples")


def variants(prefixes: Sequence[str] = PREFIXES) -> Iterator[tuple[str, str]]:
  """Return every (prefix, suffix) pair."""
  return ((prefix, suffix) for prefix in prefixes for suffix in SUFFIXES)


def position(name: str, names: Iterable[str], aliases: Iterable[str]) -> int:
  """Return the index of a data set in its benchmark.

  Args:
    name: name of the data set, or of the one whose prompt reads it.
    names: names of all data sets.
    aliases: data sets that another data set's prompt reads; they have no index.

  Returns:
    Its index in alphabetical order, from 0.

  Source: the task index of google-research/prompt-tuning.
  """
  return sorted(set(names) - set(aliases)).index(name)
