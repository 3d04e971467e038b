"""All methods on real tasks: score against trained parameters.

  python -m experiments.methods.real --tfds_data_dir tfds

Trains every method of `run.py` by its own recipe, and the whole model, on the
tasks of `real.gin`; writes `real.json`, `real.md` and `real.png`. What is done
already, is not done again: a method that is added later costs its own time, and
methods that are not asked for keep what those files say of them.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.methods import run as gate
from prompt_tuning.jobs import compare, comparison, comparison_report
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.launch import command, flags, gin_config

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE, FIGURE = "real.json", "real.md", "real.png"
# Settings of the gate that are of its skills: their answers, and more steps.
_OF_SKILLS = (gate.LONGER, "LABEL_WORDS=ANSWERS")
# The files of some methods say something else of words than `real.gin`.
_OWN = {
  "warp": ("tuners.Warp.label_words=None",),
  # Whole words are read as several texts in a row, before which a prefix has no
  # position; that of first pieces is one.
  **dict.fromkeys(
    ("prefix_positions", "prefix_mlp"), ("SCORER=@scorers.FirstPiece()",)
  ),
}
WITH_MODEL = "prompt"  # whose comparison also tunes the model
_MAPPINGS = (
  *("seconds", "steps", "trained", "runs"),
  *("step_seconds", "step_bytes", "disk_bytes"),
)


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--method", nargs="+", default=list(gate.METHODS), choices=gate.METHODS)
  add("--work_dir", default="runs/methods_real")
  add("--output_dir", default=str(HERE))
  add("--tfds_data_dir", help="prepared data of the tasks")
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  found: dict[str, Comparison] = {}
  out = pathlib.Path(given.output_dir)
  for name in given.method:
    one = run(given, name)
    if one is None:
      print("Stopped. The same command continues it.")
      return 1
    found[name] = one
    new = together(found)
    was_run = (out / RESULTS).is_file()
    write(merged(read(out), new) if was_run else new, out)
  print(comparison_report.table(read(out)))
  return 0


def run(given: argparse.Namespace, name: str) -> Comparison | None:
  """Train and score one method, unless that is done."""
  folder = pathlib.Path(given.work_dir, name)
  if (folder / comparison.FILE).is_file():
    return comparison.read(folder)
  print(f"== {name}", flush=True)
  argv = arguments(name, folder, given.gin)
  job = command.configure("compare", flags.parse("compare", argv, ""))
  return compare.compare(
    job,
    given.tfds_data_dir,
    configuration=gin_config.texts(),
    say=lambda text: None,
  )


def arguments(
  name: str, folder: pathlib.Path, bindings: Sequence[str] = ()
) -> list[str]:
  """Write the arguments of `compare` for a method.

  Args:
    name: of `gate.METHODS`.
    folder: for the trainings.
    bindings: further gin settings.

  Returns:
    The words after `prompt-tuning compare`.
  """
  files, settings = gate.METHODS[name]
  settings = tuple(s for s in settings if s not in _OF_SKILLS)
  settings = (*settings, "LABEL_WORDS=%WORDS", *_OWN.get(name, ()))
  if name == WITH_MODEL:
    settings = (*settings, "MODEL_TUNING=@models/train()")
  return [
    f"--gin_file={HERE / 'real.gin'}",
    *(f"--gin_file={file}.gin" for file in files),
    f"--gin.MODEL_DIR={str(folder)!r}",
    *(f"--gin.{binding}" for binding in (*settings, *bindings)),
  ]


def together(found: Mapping[str, Comparison]) -> Comparison:
  """Make one comparison of those of all methods, which have names of their own.

  Args:
    found: name -> comparison of one method with its controls.

  Returns:
    The scores and costs of all; random controls are left out.
  """
  first = next(iter(found.values()))
  scores = [s for s in first.scores if s.method == comparison.PLAIN]
  values: dict[str, dict[str, Any]] = {name: {} for name in _MAPPINGS}
  for name, one in found.items():
    for title in one.trained:
      shown = title if title == comparison.MODEL else name
      scores += [
        Score(shown, s.task, s.seed, s.score)
        for s in one.scores
        if s.method == title
      ]
      for field in _MAPPINGS:
        if title in getattr(one, field):
          values[field][shown] = getattr(one, field)[title]
  frozen = all(one.frozen for one in found.values())
  return Comparison(
    tuple(scores), parameters=first.parameters, frozen=frozen, **values
  )


def merged(before: Comparison, new: Comparison) -> Comparison:
  """Put methods beside those of an older comparison, in the gate's order.

  Args:
    before: what `together` made, of any methods.
    new: the same; it counts where both have a method.

  Returns:
    The methods of both.

  Raises:
    ValueError: they are of two models, or of other tasks.
  """
  of = (before.parameters, before.tasks), (new.parameters, new.tasks)
  if of[0] != of[1]:
    raise ValueError(
      f"{RESULTS} is of a model of {of[0][0]:,} parameters on {of[0][1]}, "
      f"these trainings of {of[1][0]:,} on {of[1][1]}: choose another "
      "--output_dir."
    )
  order = [comparison.PLAIN]
  for name in gate.METHODS:
    order += [name, comparison.MODEL] if name == WITH_MODEL else [name]
  # The frozen model's score stays: a method may be scored in a way of its own.
  renewed = set(new.methods) - {comparison.PLAIN}
  scores = [s for s in before.scores if s.method not in renewed]
  scores += [s for s in new.scores if s.method in renewed]
  scores = [s for s in scores if s.method in order]
  scores.sort(key=lambda score: order.index(score.method))
  values: dict[str, dict[str, Any]] = {}
  for field in _MAPPINGS:
    both = {**getattr(before, field), **getattr(new, field)}
    values[field] = {name: both[name] for name in order if name in both}
  return Comparison(
    tuple(scores),
    parameters=new.parameters,
    frozen=before.frozen and new.frozen,
    **values,
  )


def write(whole: Comparison, folder: pathlib.Path) -> None:
  """Write the numbers, the table and the plot."""
  content: dict[str, Any] = whole._asdict()
  content["scores"] = [score._asdict() for score in whole.scores]
  content["made_of"] = dict(whole.made_of)
  text = json.dumps(content, indent=1) + "\n"
  (folder / RESULTS).write_text(text, encoding="utf-8")
  markdown = comparison_report.as_markdown(whole)
  (folder / TABLE).write_text(markdown, encoding="utf-8")
  comparison_report.draw(whole, folder / FIGURE)


def read(folder: pathlib.Path) -> Comparison:
  """Read what `write` wrote.

  Args:
    folder: of the experiment.

  Returns:
    The comparison of all methods.
  """
  content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
  content["scores"] = tuple(Score(**score) for score in content["scores"])
  return Comparison(**content)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
