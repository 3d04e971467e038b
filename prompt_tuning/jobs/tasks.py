"""The output of `data list` and `data show`: tasks, and examples of one."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from prompt_tuning.core.placement import FIRST_SOFT
from prompt_tuning.data import (
  cache,
  installed,
  spec,
  summary,
  templated,
  vocabulary,
)
from prompt_tuning.data import prepare as official_files
from prompt_tuning.data.prepare import sources
from prompt_tuning.data.token_rows import FEATURES
from prompt_tuning.prompting import label_words, rules
from prompt_tuning.prompting.rendering import Renderer

_COLUMNS = 80  # of a screen
_MIXTURES = "mixtures"


def overview(data_dir: str | None = None) -> list[str]:
  """Describe all benchmarks on one screen.

  Args:
    data_dir: TFDS's data directory; None for TFDS's own choice.

  Returns:
    Lines of at most 80 columns.
  """
  folder = data_dir or cache.default_data_dir()
  counts: dict[str, int] = {}
  datasets: dict[str, dict[str, list[spec.TaskSpec]]] = {}
  for name in spec.names():
    entry = spec.get(name)
    benchmark = _MIXTURES
    if isinstance(entry, spec.TaskSpec):
      benchmark = entry.benchmark
      tasks = datasets.setdefault(benchmark, {})
      tasks.setdefault(entry.dataset, []).append(entry)
    counts[benchmark] = counts.get(benchmark, 0) + 1
  lines = [f"{'benchmark':<19}  {'tasks':>5}  {'here':>8}  data sets"]
  for benchmark, tasks in sorted(datasets.items()):
    here = sum(any(_is_here(t, folder) for t in tasks[d]) for d in tasks)
    start = f"{benchmark:<19}  {counts[benchmark]:>5}  "
    start += f"{f'{here} of {len(tasks)}':>8}  "
    names = ", ".join(sorted(tasks))
    width = _COLUMNS - len(start)
    lines.append(start + textwrap.shorten(names, width, placeholder=" ..."))
  lines.append(f"{_MIXTURES:<19}  {counts[_MIXTURES]:>5}")
  return [
    *lines,
    "",
    f"Here: in {folder}, by `data prepare` or by TFDS.",
    "`data list PART` shows tasks with PART in their names, --all all of them.",
    f"Any task's name and `{spec.KSHOT_ENDING}` is a k-shot task: 16 training",
    "examples of each class, drawn with seed 0.",
  ]


def _is_here(task: spec.TaskSpec, data_dir: str) -> bool:
  if not task.is_from_tfds:
    return True
  return bool(installed.splits(data_dir, task.source))


def listing(part: str = "", data_dir: str | None = None) -> list[str]:
  """Describe tasks and mixtures, one per line.

  Args:
    part: a part of their names.
    data_dir: TFDS's data directory; None for TFDS's own choice.

  Returns:
    Lines.

  Raises:
    ValueError: no such name; the message names the nearest.
  """
  names = [name for name in spec.names() if part in name]
  if not names:
    names = [spec.get(part).name]  # a k-shot task, or an error
  official = {s.name: dict(s.official) for s in sources.all_sources()}
  folder = data_dir or cache.default_data_dir()
  width = max(map(len, names))
  return [
    f"{name:<{width}}  {_described(spec.get(name), folder, official)}"
    for name in names
  ]


def _described(
  entry: spec.TaskSpec | spec.MixtureSpec,
  data_dir: str,
  official: Mapping[str, Mapping[str, int]],
) -> str:
  if isinstance(entry, spec.MixtureSpec):
    return f"mixture of {', '.join(entry.rates)}"
  if not entry.is_from_tfds:
    return f"{entry.source}: {', '.join(entry.splits)}"
  rows = installed.splits(data_dir, entry.source)
  complete = official.get(entry.source.partition(":")[0], {})
  splits = list(entry.splits.values())
  return f"{entry.source}: {_counts(rows, complete, splits)}"


def prepare(
  directories: Sequence[str],
  data_dir: str,
  only: Sequence[str] = (),
  overwrite: bool = False,
) -> Iterator[str]:
  """Turn official files into TFDS directories, see `data.prepare`.

  Args:
    directories: searched for official files.
    data_dir: TFDS's data directory.
    only: names of data sets; empty for all that are found.
    overwrite: whether to replace data sets that were made from other files.

  Yields:
    A line for every data set, once it is there.

  Raises:
    OSError: a folder is missing, or cannot be written to.
    ValueError: a bad file, with its line; or an unknown name.
  """
  versions = official_files.prepare_each(directories, data_dir, only, overwrite)
  for version in versions:
    counts = _counts(version.rows, version.official, sorted(version.rows))
    yield f"{version.source}  {counts}" + "  (was there)" * (not version.is_new)


def _counts(
  rows: Mapping[str, int], official: Mapping[str, int], splits: Sequence[str]
) -> str:
  """Say how many rows of each split we have, and how many it has officially."""
  counts = []
  for split in splits:
    if split not in rows:
      counts.append(f"{split} missing")
      continue
    expected = official.get(split, rows[split])
    of = f" of {expected:,}" if expected != rows[split] else ""
    counts.append(f"{split} {rows[split]:,}{of}")
  return ", ".join(counts)


def examples(
  task: str,
  split: str | None,
  lengths: Mapping[str, int | None],
  count: int,
  data_dir: str | None,
  cache_dir: str | None,
  vocabulary_file: str | None,
) -> Iterator[str]:
  """Show a task's examples as the model sees them, and their lengths.

  Args:
    task: or a mixture.
    split: None for the first that it has.
    lengths: limits of inputs and targets; None is no limit.
    count: examples to show of each task.
    data_dir: TFDS's data directory; None for TFDS's own choice.
    cache_dir: where tokenised examples are; None for the usual place.
    vocabulary_file: None for the usual one.

  Yields:
    Lines.

  Raises:
    ValueError: no such task, split, data or vocabulary.
  """
  entry = spec.get(task)
  if vocabulary_file:
    vocabulary.configure(vocabulary_file)
  words = vocabulary.load()
  caches = cache.load(
    task,
    split or _splits_of(entry)[0],
    lengths,
    cache_dir or cache.default_cache_dir(),
    data_dir,
  )
  for tokens, rate in caches:
    yield f"{tokens.task}, {tokens.split}, rate {rate:g}"
    renderer = templated.renderer(spec.task(tokens.task), words)
    yield from _label_word_lines(spec.task(tokens.task), words)
    for index in range(min(count, len(tokens))):
      yield from _example_lines(tokens, index, words, renderer)
    yield from _summary_lines(tokens)


def _label_word_lines(
  task: spec.TaskSpec, words: vocabulary.Vocabulary
) -> Iterator[str]:
  """Say which label words, or rules, the vocabulary and scorers can use."""
  of_classes, of_masks = templated.label_words(task), templated.rules(task)
  lines: list[str] = []
  if of_classes:
    lines = label_words.survey(of_classes, words.encode).lines()
  elif of_masks:
    lines = rules.survey(of_masks, words.encode).lines()
  for line in lines:
    yield f"  {line}"


def _splits_of(entry: spec.TaskSpec | spec.MixtureSpec) -> list[str]:
  if isinstance(entry, spec.TaskSpec):
    return list(entry.splits)
  splits = [s for name in entry.rates for s in spec.task(name).splits]
  return list(dict.fromkeys(splits))


def _example_lines(
  tokens: cache.TokenCache,
  index: int,
  words: vocabulary.Vocabulary,
  renderer: Renderer | None,
) -> Iterator[str]:
  example = tokens.example(index)
  lengths = example.pop(templated.PARTS, None)
  yield f"\nexample {index}"
  for name in FEATURES:
    ids = getattr(tokens, name)[index].tolist()
    yield f"  {name}: {example.pop(f'{name}_pretokenized')}"
    if renderer and name == "inputs":
      yield from _part_lines(renderer, ids, lengths, words)
      continue
    yield f"    ids:    {' '.join(map(str, ids))}"
    yield f"    pieces: {' '.join(words.pieces(ids))}"
  for name, value in example.items():
    yield f"  {name}: {value}"


def _part_lines(
  renderer: Renderer,
  ids: Sequence[int],
  lengths: Sequence[int],
  words: vocabulary.Vocabulary,
) -> Iterator[str]:
  """Write the parts of a template beside their pieces."""
  names = renderer.describe(lengths)
  width = max(map(len, names))
  start = 0
  for name, length in zip(names, lengths, strict=True):
    part = ids[start : start + length]
    start += length
    pieces = " ".join(_piece(token, words) for token in part)
    yield f"    {name:<{width}}  {pieces}".rstrip()


def _piece(token: int, words: vocabulary.Vocabulary) -> str:
  if token >= FIRST_SOFT:
    return f"[{token - FIRST_SOFT}]"
  return words.pieces([token])[0]


def _summary_lines(tokens: cache.TokenCache) -> Iterator[str]:
  lengths = summary.summarise(tokens)
  yield f"\n{lengths.count:,} examples"
  heads = "".join(f"{f'{p} %':>8}" for p in summary.PERCENTILES)
  yield f"  length{'mean':>10}{heads}  cut by the limit"
  for name in FEATURES:
    cells = "".join(f"{n:>8,}" for n in lengths.percentiles[name])
    limit = tokens.lengths[name]
    cut = (
      f"{lengths.truncated[name]:,} (limit {limit})" if limit else "no limit"
    )
    yield f"  {name:<8}{lengths.mean[name]:>8.1f}{cells}  {cut}"
  for label, share in lengths.labels.items():
    yield f"  target {label!r}: {100 * share:.1f} %"
  if not lengths.labels:
    yield f"  more than {summary.MOST_LABELS} different targets"
