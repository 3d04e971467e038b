"""`prompt-tuning data`: prepare official files, list tasks, look at one."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from prompt_tuning.data import cache, installed, spec, summary, vocabulary
from prompt_tuning.data.prepare import DatasetVersion, prepare, sources
from prompt_tuning.data.token_rows import FEATURES

_DATA_DIR_HELP = "TFDS's data directory"


def main(argv: Sequence[str]) -> int:
  """Run one of the subcommands.

  Args:
    argv: the words after `prompt-tuning data`.

  Returns:
    The process's exit status.
  """
  arguments = _parser().parse_args(argv)
  try:
    for line in arguments.run(arguments):
      print(line)
  except BrokenPipeError:  # for `main`
    raise
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="prompt-tuning data", description=__doc__, allow_abbrev=False
  )
  commands = parser.add_subparsers(required=True, metavar="COMMAND")

  command = commands.add_parser(
    "prepare", help="turn official files into TFDS directories"
  )
  command.set_defaults(run=_prepare)
  command.add_argument(
    "--source",
    nargs="+",
    required=True,
    metavar="DIR",
    help="searched for official files (SuperGLUE, GLUE, SQuAD, MRQA, AG News, "
    "DBpedia, IMDB, Amazon), complete or partial",
  )
  command.add_argument("--tfds_data_dir", required=True, help=_DATA_DIR_HELP)
  command.add_argument(
    "--only",
    nargs="+",
    default=(),
    metavar="NAME",
    help="dataset names such as super_glue/boolq, or glue for all of GLUE",
  )
  command.add_argument(
    "--overwrite",
    action="store_true",
    help="replace what was made from other files",
  )

  command = commands.add_parser("list", help="list tasks and what is there")
  command.set_defaults(run=_list)
  command.add_argument("part", nargs="?", default="", help="part of a name")
  command.add_argument("--tfds_data_dir", help=_DATA_DIR_HELP)

  command = commands.add_parser("show", help="look at a task's examples")
  command.set_defaults(run=_show)
  command.add_argument("task", help="a task or mixture, see `list`")
  command.add_argument("--split", help="by default the first it has")
  command.add_argument("--tfds_data_dir", help=_DATA_DIR_HELP)
  command.add_argument("--cache_dir", default=cache.default_cache_dir())
  command.add_argument("--vocabulary", help="T5's sentencepiece.model")
  command.add_argument("--examples", type=int, default=3)
  command.add_argument("--inputs", type=int, default=512, help="limit")
  command.add_argument("--targets", type=int, help="limit, by default none")
  return parser


def _prepare(arguments: argparse.Namespace) -> Iterator[str]:
  done = prepare(
    arguments.source,
    arguments.tfds_data_dir,
    arguments.only,
    arguments.overwrite,
  )
  width = max(len(item.source) for item in done)
  for item in done:
    state = "" if item.is_new else "  (was there)"
    yield f"{item.source:<{width}}  {_rows_of(item)}{state}"


def _rows_of(item: DatasetVersion) -> str:
  return _describe(item.rows, item.official, sorted(item.rows))


def _describe(
  rows: dict[str, int], official: dict[str, int], splits: Sequence[str]
) -> str:
  """Say how many rows of each split there are, and of how many."""
  parts = []
  for split in splits:
    if split not in rows:
      parts.append(f"{split} missing")
      continue
    expected = official.get(split, rows[split])
    of = f" of {expected:,}" if expected != rows[split] else ""
    parts.append(f"{split} {rows[split]:,}{of}")
  return ", ".join(parts)


def _list(arguments: argparse.Namespace) -> Iterator[str]:
  names = [name for name in spec.names() if arguments.part in name]
  if not names:
    spec.get(arguments.part)  # says which name is nearest
  official = {s.name: dict(s.official) for s in sources.all_sources()}
  data_dir = arguments.tfds_data_dir or cache.default_data_dir()
  width = max(map(len, names))
  for name in names:
    found = spec.get(name)
    if isinstance(found, spec.MixtureSpec):
      yield f"{name:<{width}}  mixture of {', '.join(found.rates)}"
      continue
    if not found.is_from_tfds:
      yield f"{name:<{width}}  {found.source}: {', '.join(found.splits)}"
      continue
    rows = installed.splits(data_dir, found.source)
    complete = official.get(found.source.partition(":")[0], {})
    here = _describe(rows, complete, list(found.splits.values()))
    yield f"{name:<{width}}  {found.source}: {here}"


def _show(arguments: argparse.Namespace) -> Iterator[str]:
  found = spec.get(arguments.task)
  if arguments.vocabulary:
    vocabulary.configure(arguments.vocabulary)
  words = vocabulary.load()
  splits = [arguments.split] if arguments.split else _splits_of(found)
  caches = cache.load(
    arguments.task,
    splits[0],
    {"inputs": arguments.inputs, "targets": arguments.targets},
    arguments.cache_dir,
    arguments.tfds_data_dir,
  )
  for tokens, rate in caches:
    yield f"{tokens.task}, {tokens.split}, rate {rate:g}"
    for index in range(min(arguments.examples, len(tokens))):
      yield from _example_lines(tokens, index, words)
    yield from _summary_lines(tokens)


def _splits_of(found: spec.TaskSpec | spec.MixtureSpec) -> list[str]:
  if isinstance(found, spec.TaskSpec):
    return list(found.splits)
  splits = [s for name in found.rates for s in spec.task(name).splits]
  return list(dict.fromkeys(splits))


def _example_lines(
  tokens: cache.TokenCache, index: int, words: vocabulary.Vocabulary
) -> Iterator[str]:
  example = tokens.example(index)
  yield f"\nexample {index}"
  for name in FEATURES:
    ids = getattr(tokens, name)[index].tolist()
    yield f"  {name}: {example.pop(f'{name}_pretokenized')}"
    yield f"    ids:    {' '.join(map(str, ids))}"
    yield f"    pieces: {' '.join(words.pieces(ids))}"
  for name, value in example.items():
    yield f"  {name}: {value}"


def _summary_lines(tokens: cache.TokenCache) -> Iterator[str]:
  found = summary.summarise(tokens)
  yield f"\n{found.count:,} examples"
  heads = "".join(f"{f'{p} %':>8}" for p in summary.PERCENTILES)
  yield f"  length{'mean':>10}{heads}  cut by the limit"
  for name in FEATURES:
    cells = "".join(f"{n:>8,}" for n in found.percentiles[name])
    limit = tokens.lengths[name]
    cut = f"{found.truncated[name]:,} (limit {limit})" if limit else "no limit"
    yield f"  {name:<8}{found.mean[name]:>8.1f}{cells}  {cut}"
  for label, share in found.labels.items():
    yield f"  target {label!r}: {100 * share:.1f} %"
  if not found.labels:
    yield f"  more than {summary.MOST_LABELS} different targets"
