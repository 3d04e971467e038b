"""Score against steps of LM adaptation.

  python -m experiments.figure3d_adaptation.run --rung tall_1=runs/tall_1

Of every rung, which `prompt-tuning pretrain` has trained, the bundles of its
second stage become checkpoints; then prompts train on each, as one sweep of
`ladder.gin`. Writes `results.json`, `table.md` and `figure.png`, beside what
they have of other rungs. What is done already, is not done again.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments import collect, scoring
from prompt_tuning.jobs import convert, sweep_report
from prompt_tuning.jobs.convert_job import Conversion
from prompt_tuning.jobs.sweep_report import Point
from prompt_tuning.launch import main as program

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE, FIGURE = "results.json", "table.md", "figure.png"
SHARES = (0.0, 0.1, 0.2, 0.5, 1.0)  # of all steps of LM adaptation
BEFORE, STAGE = "span_corruption", "lm_adaptation"
RUNG, STEPS = "rung", "steps of LM adaptation"
_AXIS = "INITIAL_CHECKPOINT_PATH"


class Model(NamedTuple):
  """A model on the way.

  Attributes:
    rung: its name.
    steps: of LM adaptation that it has had.
    source: what has it: a checkpoint, or a bundle of the stage.
  """

  rung: str
  steps: int
  source: pathlib.Path


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add(
    "--rung",
    nargs="+",
    required=True,
    type=scoring.named_folder,
    metavar="NAME=FOLDER",
  )
  add("--work_dir", default="runs/figure3d_adaptation")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  work, output = pathlib.Path(given.work_dir), pathlib.Path(given.output_dir)
  points = known(output)
  for rung in given.rung:
    name, _, folder = rung.partition("=")
    models = on_the_way(name, pathlib.Path(folder))
    paths = {str(checkpoint(model, work)): model for model in models}
    sweep = work / "sweeps" / name
    status = program.main(arguments(list(paths), sweep, given.gin))
    if status:
      return status
    new = read(sweep / sweep_report.FOLDER / RESULTS, paths)
    points = merged(points, name, new)
  write(points, output)
  return 0


def on_the_way(rung: str, folder: pathlib.Path) -> list[Model]:
  """List the models between both stages of a pre-training.

  Args:
    rung: its name.
    folder: MODEL_DIR of `pretrain`, where both stages are done.

  Returns:
    A model for each of `SHARES`; where no bundle has just as many steps, the
    nearest one. The first is what span corruption left.

  Raises:
    FileNotFoundError: a stage is not done.
  """
  (start,) = _checkpoints(folder / BEFORE)
  (end,) = _checkpoints(folder / STAGE)
  before, after = _number(start), _number(end)
  bundles = {
    _number(path): path for path in (folder / STAGE / "bundles").glob("step_*")
  }
  sources = bundles | {0: start, after - before: end}
  models: dict[int, Model] = {}
  for share in SHARES:
    wanted = share * (after - before)
    steps = min(sources, key=lambda steps: (abs(steps - wanted), steps))
    models[steps] = Model(rung, steps, sources[steps])
  return list(models.values())


def _checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
  found = list(folder.glob("checkpoint_*"))
  if len(found) != 1:
    raise FileNotFoundError(
      f"{folder} has {len(found)} checkpoints; expected that of a stage that "
      "is done. Run `prompt-tuning pretrain` to its end first."
    )
  return found


def _number(path: pathlib.Path) -> int:
  return int(path.name.rpartition("_")[2])


def checkpoint(model: Model, work: pathlib.Path) -> pathlib.Path:
  """Make a checkpoint of a model, unless there is one.

  Args:
    model: which.
    work: where to put those that are bundles.

  Returns:
    Its path.
  """
  if model.source.name.startswith("checkpoint_"):
    return model.source
  path = work / "models" / model.rung / f"checkpoint_{model.steps}"
  if not path.exists():
    convert.convert(Conversion(str(model.source), str(path), "t5x"))
  return path


def arguments(
  paths: Sequence[str], folder: pathlib.Path, bindings: Sequence[str]
) -> list[str]:
  """Write the arguments of the sweep of one rung.

  Args:
    paths: of its models.
    folder: for the sweep.
    bindings: further settings in gin.

  Returns:
    The words after `prompt-tuning`.
  """
  return [
    "sweep",
    f"--gin_file={HERE / 'ladder.gin'}",
    f"--gin.MODEL_DIR={str(folder)!r}",
    f"--axis={_AXIS}={','.join(map(repr, paths))}",
    *(f"--gin.{binding}" for binding in bindings),
  ]


def read(path: pathlib.Path, models: Mapping[str, Model]) -> list[Point]:
  """Read a sweep's results, with rung and steps in the place of paths.

  Args:
    path: of its JSON.
    models: path of a checkpoint -> what it is.

  Returns:
    The points.
  """
  content = json.loads(path.read_text(encoding="utf-8"))
  labels = content["axes"][_AXIS]
  named = dict(zip(labels, models.values(), strict=True))
  points = []
  for point in sweep_report.from_json(content)[0]:
    model = named[point.values[_AXIS]]
    rest = {axis: v for axis, v in point.values.items() if axis != _AXIS}
    values = {RUNG: model.rung, STEPS: str(model.steps), **rest}
    cell = ",".join(f"{axis}={value}" for axis, value in values.items())
    points.append(point._replace(cell=cell, values=values))
  return points


def known(folder: pathlib.Path) -> list[Point]:
  """Read the results that are there already.

  Args:
    folder: of the results.

  Returns:
    The points; none where nothing was written.

  Raises:
    SystemExit: they are damaged, or over other axes than rungs and steps.
  """
  path = folder / RESULTS
  if not path.is_file():
    return []
  remedy = "Give another --output_dir."
  what = "results of steps of LM adaptation"
  rows = scoring.read_json(path, what, [collect.POINT], remedy)
  for row in rows:
    axes, first = list(row["values"]), list(rows[0]["values"])
    if axes[:2] != [RUNG, STEPS] or axes != first:
      raise SystemExit(
        f"{path} has a result over {', '.join(axes)}; expected results over "
        f"{RUNG}, {STEPS}, and the same axes everywhere. {remedy}"
      )
  return [Point(*(row[name] for name in Point._fields)) for row in rows]


def merged(
  points: Sequence[Point], rung: str, new: Sequence[Point]
) -> list[Point]:
  """Put the results of a rung in the place of older ones.

  Args:
    points: of any rungs.
    rung: its name.
    new: its results.

  Returns:
    All of them: rungs as they were, a new one last.

  Raises:
    SystemExit: they are over different axes.
  """
  for old, own in zip(points[:1], new[:1], strict=False):
    theirs, axes = list(old.values), list(own.values)
    if theirs != axes:
      raise SystemExit(
        f"The results of {rung} are over {', '.join(axes)}, and those that are "
        f"there over {', '.join(theirs)}; expected the same axes. Give another "
        "--output_dir; what is trained, does not train again."
      )
  by_rung: dict[str, list[Point]] = {}
  for point in points:
    by_rung.setdefault(point.values[RUNG], []).append(point)
  by_rung[rung] = list(new)
  return [point for own in by_rung.values() for point in own]


def write(points: Sequence[Point], folder: pathlib.Path) -> None:
  """Write results, table and picture; what makes none changes no file.

  Args:
    points: the results.
    folder: where to.
  """
  groups = sweep_report.groups(points, ("SEEDS",))
  scoring.write(
    [point._asdict() for point in points],
    lambda _: sweep_report.markdown(groups),
    lambda _, path: sweep_report.picture(groups, STEPS, path),
    folder,
  )


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
