"""The table of tasks, from the catalogue that the package registers."""

from docs.generate import markdown
from prompt_tuning import data  # noqa: F401  registers the published tasks
from prompt_tuning.data import spec

_MOST_WORDS = 6


def page() -> str:
  """Write the page of all tasks and mixtures."""
  tasks: dict[str, dict[str, list[spec.TaskSpec]]] = {}
  mixtures: list[spec.MixtureSpec] = []
  for name in spec.names():
    entry = spec.get(name)
    if isinstance(entry, spec.TaskSpec):
      by_dataset = tasks.setdefault(entry.benchmark, {})
      by_dataset.setdefault(entry.dataset, []).append(entry)
    else:
      mixtures.append(entry)
  lines = ["# Tasks", "", _INTRODUCTION, ""]
  head = ("data set", "tasks", "source", "splits", "label words")
  for benchmark, datasets in sorted(tasks.items()):
    rows = [_row(name, entries) for name, entries in sorted(datasets.items())]
    lines += [f"## {benchmark}", "", markdown.table(head, rows), ""]
  rows = [_mixture(entry) for entry in mixtures]
  lines += ["## Mixtures", ""]
  lines += [markdown.table(("mixture", "tasks"), rows), ""]
  return "\n".join(lines)


_INTRODUCTION = """\
Made from `prompt_tuning/data/catalog`. Names that begin with `taskless_` have
no task's name in their texts, which is what a prompt learns. `_examples` tasks
also log sample texts. Any task's name with `_k16_seed0` behind it is a k-shot
task: 16 training examples of each class, drawn with seed 0. `prompt-tuning data
list` says which of them are on your disk; [how data gets there](../data.md)."""


def _row(name: str, entries: list[spec.TaskSpec]) -> tuple[str, ...]:
  first = entries[0]
  words = [markdown.code(word) for word in first.label_words[:_MOST_WORDS]]
  if len(first.label_words) > _MOST_WORDS:
    words.append(f"... ({len(first.label_words)})")
  names = [e.name for e in entries if not e.log_examples]
  sources = dict.fromkeys(entry.source for entry in entries)
  return (
    markdown.escaped(name),
    "<br>".join(map(markdown.code, names)),
    "<br>".join(map(markdown.code, sources)),
    ", ".join(first.splits),
    ", ".join(words),
  )


def _mixture(entry: spec.MixtureSpec) -> tuple[str, str]:
  names = list(entry.rates)
  shown = [markdown.code(name) for name in names[:4]]
  if len(names) > len(shown):
    shown.append(f"and {len(names) - len(shown)} more")
  return markdown.code(entry.name), ", ".join(shown)
