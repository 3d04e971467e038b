"""One ordered list of rules decides which parameters train.

Gradient, optimizer state, checkpoint contents, parameter counts and the table
a user sees are all read from the `Partition` built here, so they cannot
disagree about what is frozen.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from prompt_tuning.core import tree
from prompt_tuning.core.types import Params, Shape

TRAIN, FREEZE = "train", "freeze"
MODES = (TRAIN, FREEZE)

_LISTED = 5  # most paths in one error message
_NUMBERED_FOLDER = re.compile(r"(?<=_)\d+(?=/)")


@dataclasses.dataclass(frozen=True)
class Rule:
  """What happens to the parameters whose whole path a pattern matches.

  Attributes:
    pattern: regular expression for a full path, such as `tuner/.*`.
    mode: `train` or `freeze`.
    optional: whether the rule may decide about no parameter at all. Otherwise
      that is an error, because a misspelt pattern is silent by nature.
  """

  pattern: str
  mode: str
  optional: bool = False


RuleLike = Rule | tuple[str, str]

# What the rules see is {"model": backbone parameters, "tuner": tuner's}.
TUNER_ONLY: tuple[Rule, ...] = (
  Rule(r"tuner/.*", TRAIN),
  Rule(r"model/.*", FREEZE),
)
EVERYTHING: tuple[Rule, ...] = (Rule(r".*", TRAIN),)  # model tuning


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One parameter and the decision about it.

  Attributes:
    path: flat path, such as `model/token_embedder/embedding`.
    shape: its shape when the partition was built.
    dtype: name of its dtype.
    mode: `train` or `freeze`.
    pattern: the rule that decided.
  """

  path: str
  shape: Shape
  dtype: str
  mode: str
  pattern: str

  @property
  def size(self) -> int:
    """Number of parameters in the leaf."""
    return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Partition:
  """Which leaves of a parameter tree train and which stay frozen.

  Attributes:
    leaves: every leaf of the tree, sorted by path. Shapes serve counts and
      report only: a tree with a leading run axis splits the same way.
  """

  leaves: tuple[Leaf, ...]

  @functools.cached_property
  def modes(self) -> Mapping[str, str]:
    """The decision for every path."""
    return {leaf.path: leaf.mode for leaf in self.leaves}

  def split(self, params: Params) -> tuple[Params, Params]:
    """Divide a tree into its trainable and its frozen part.

    Args:
      params: tree with exactly the paths the partition was built from.

    Returns:
      The trainable and the frozen tree: nested dictionaries that hold each leaf
      of `params` exactly once. Mappings without leaves vanish.

    Raises:
      ValueError: paths are missing or unknown.
    """
    flat = tree.flatten(params)
    _check_paths(flat, self.modes, "tree to split")
    by_mode: dict[str, dict[str, object]] = {TRAIN: {}, FREEZE: {}}
    for path, leaf in flat.items():
      by_mode[self.modes[path]][path] = leaf
    return tree.unflatten(by_mode[TRAIN]), tree.unflatten(by_mode[FREEZE])

  def merge(self, trainable: Params, frozen: Params) -> Params:
    """Put the two parts that `split` made together again.

    Args:
      trainable: the trainable part.
      frozen: the frozen part.

    Returns:
      The whole tree.

    Raises:
      ValueError: paths are missing, unknown, or in the wrong part.
    """
    flat = {}
    for mode, part in ((TRAIN, trainable), (FREEZE, frozen)):
      leaves = tree.flatten(part)
      expected = [path for path, m in self.modes.items() if m == mode]
      _check_paths(leaves, expected, f"part to {mode}")
      flat.update(leaves)
    return tree.unflatten(dict(sorted(flat.items())))

  def trains(self, folder: str) -> bool:
    """Whether any parameter of a folder, such as `model`, trains."""
    return any(
      leaf.mode == TRAIN and leaf.path.startswith(f"{folder}/")
      for leaf in self.leaves
    )

  def count(self, mode: str) -> int:
    """Number of parameters that `train`, or that the rules `freeze`."""
    return sum(leaf.size for leaf in self.leaves if leaf.mode == mode)

  def summary(self) -> str:
    """Format how much trains and how much stays frozen.

    Returns:
      A table with a line per mode, rule and dtype.
    """
    total = sum(leaf.size for leaf in self.leaves)
    kinds: dict[tuple[str, str, str], list[Leaf]] = {}
    for leaf in sorted(self.leaves, key=lambda leaf: MODES.index(leaf.mode)):
      kind = (leaf.mode, leaf.dtype, leaf.pattern)
      kinds.setdefault(kind, []).append(leaf)
    rows = [("", "parameters", "share", "arrays", "dtype", "rule")]
    for (mode, dtype, pattern), leaves in kinds.items():
      count = sum(leaf.size for leaf in leaves)
      share = f"{count / max(total, 1):.2%}"
      numbers = (f"{count:,}", share, f"{len(leaves):,}")
      rows.append((mode, *numbers, dtype, pattern))
    return _table(rows, right=(1, 2, 3))

  def report(self) -> str:
    """Format what becomes of every parameter as a table.

    Returns:
      One line per leaf, trainable ones first, and totals. Leaves of numbered
      folders (`layers_0`, `layers_1`, ...) that agree in everything share a
      line.
    """
    header = ("", "path", "shape", "dtype", "arrays", "parameters", "rule")
    rows = [header, *_rows(self.leaves)]
    lines = [_table(rows)]
    total = sum(leaf.size for leaf in self.leaves)
    for mode in MODES:
      count = self.count(mode)
      arrays = sum(leaf.mode == mode for leaf in self.leaves)
      lines.append(
        f"{mode}: {count:,} of {total:,} parameters "
        f"({count / max(total, 1):.4%}) in {arrays:,} arrays"
      )
    return "\n".join(lines)


def build(rules: Iterable[RuleLike], params: Params) -> Partition:
  """Decide about every parameter of a tree.

  Args:
    rules: (pattern, `train` | `freeze`) pairs or `Rule`s. A pattern must match
      a whole path; the first rule that matches a path decides about it.
    params: parameter tree; leaves need a shape and a dtype only, so that
      `jax.eval_shape` results will do.

  Returns:
    The partition.

  Raises:
    ValueError: a rule is malformed, a parameter is matched by no rule, or a
      rule that is not optional decides about no parameter. All such faults are
      in one message.
  """
  compiled = [(rule, _compile(rule)) for rule in map(_as_rule, rules)]
  flat = tree.flatten(params)
  leaves, unmatched = [], []
  used: collections.Counter[int] = collections.Counter()
  for path, leaf in flat.items():
    hit = next(
      (i for i, (_, expr) in enumerate(compiled) if expr.fullmatch(path)), None
    )
    if hit is None:
      unmatched.append(path)
      continue
    used[hit] += 1
    rule = compiled[hit][0]
    leaves.append(
      Leaf(path, tuple(leaf.shape), str(leaf.dtype), rule.mode, rule.pattern)
    )
  faults = []
  if unmatched:
    faults.append(f"No rule matches {_listing(unmatched)}.")
  for i, (rule, expr) in enumerate(compiled):
    if not used[i] and not rule.optional:
      faults.append(_idle_rule(rule, expr, compiled[:i], list(flat)))
  if faults:
    raise ValueError(
      "The partition rules do not fit the parameters. " + " ".join(faults)
    )
  return Partition(tuple(leaves))


def _as_rule(rule: RuleLike) -> Rule:
  if not isinstance(rule, Rule):
    if isinstance(rule, str) or len(rule) != 2:
      raise ValueError(
        f"A partition rule is a pair (pattern, 'train' | 'freeze'); got "
        f"{rule!r}. Change the partition rules."
      )
    rule = Rule(*rule)
  if rule.mode not in MODES:
    raise ValueError(
      f"Partition rule {rule.pattern!r} says {rule.mode!r}; expected one of "
      f"{MODES}.{tree.nearest(str(rule.mode), MODES)}"
    )
  return rule


def _compile(rule: Rule) -> re.Pattern[str]:
  try:
    return re.compile(rule.pattern)
  except re.error as error:
    raise ValueError(
      f"Partition rule {rule.pattern!r} is not a regular expression: {error}."
    ) from error


def _idle_rule(
  rule: Rule,
  expression: re.Pattern[str],
  earlier: Sequence[tuple[Rule, re.Pattern[str]]],
  paths: Sequence[str],
) -> str:
  """Say why a rule decides about nothing: shadowed, or matching nothing."""
  matched = [path for path in paths if expression.fullmatch(path)]
  if matched:
    first = next(r for r, expr in earlier if expr.fullmatch(matched[0]))
    return (
      f"Rule {rule.pattern!r} decides nothing because {first.pattern!r} comes "
      "first: swap them or remove one."
    )
  literal = re.sub(r"[^\w/]", "", rule.pattern)
  folders = {path[: i + 1] for path in paths for i in _slashes(path)}
  hint = tree.nearest(literal, [*sorted(folders), *paths])
  return f"Rule {rule.pattern!r} matches no parameter.{hint}"


def _slashes(path: str) -> list[int]:
  return [i for i, char in enumerate(path) if char == tree.SEPARATOR]


def _check_paths(
  got: Iterable[str], expected: Iterable[str], what: str
) -> None:
  got, expected = set(got), set(expected)
  if got == expected:
    return
  message = f"The {what} is not what the partition was built for."
  if missing := sorted(expected - got):
    message += f" Missing: {_listing(missing)}."
  if surplus := sorted(got - expected):
    message += f" Unexpected: {_listing(surplus)}."
    message += tree.nearest(surplus[0], missing)
  raise ValueError(message + " Use the same model, tuner and rules for both.")


def _listing(paths: Sequence[str]) -> str:
  more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
  return ", ".join(map(repr, paths[:_LISTED])) + more


def _rows(leaves: Iterable[Leaf]) -> list[tuple[str, ...]]:
  """Fold leaves that differ by one folder number only into table rows."""
  groups: dict[tuple[str, ...], list[tuple[int | None, Leaf]]] = {}
  for leaf in sorted(leaves, key=lambda x: (MODES.index(x.mode), x.path)):
    number = _NUMBERED_FOLDER.search(leaf.path)
    index = int(number.group()) if number else None
    path = _NUMBERED_FOLDER.sub("{}", leaf.path, count=1)
    shape = "x".join(map(str, leaf.shape)) or "scalar"
    key = (leaf.mode, path, shape, leaf.dtype, leaf.pattern)
    groups.setdefault(key, []).append((index, leaf))
  rows: list[tuple[str, ...]] = []
  for (mode, path, shape, dtype, pattern), members in groups.items():
    indices = sorted(i for i, _ in members if i is not None)
    if indices:
      path = path.replace("{}", _span(indices))
    size = sum(leaf.size for _, leaf in members)
    count = f"{len(members)}"
    rows.append((mode, path, shape, dtype, count, f"{size:,}", pattern))
  return rows


def _table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
  """Align columns; those at the right are given by number."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  align = [str.rjust if i in right else str.ljust for i in range(len(widths))]
  lines = []
  for row in rows:
    cells = map(lambda side, *cell: side(*cell), align, row, widths)
    lines.append("  ".join(cells).rstrip())
  return "\n".join(lines)


def _span(indices: Sequence[int]) -> str:
  """Write sorted folder numbers as `7`, `{0..23}` or `{0,2,5}`."""
  if len(indices) == 1:
    return str(indices[0])
  if indices[-1] - indices[0] == len(indices) - 1:
    return f"{{{indices[0]}..{indices[-1]}}}"
  return "{" + ",".join(map(str, indices)) + "}"
