"""Is a frozen model steered by every method, and by nothing else?

  python -m experiments.methods.run

Trains every method on four skills of the embedded model, five seeds each, and
again on the same texts with the answers of others, which must teach nothing.
Writes `results.json`, `table.md` and `figure.png`. What is done already, is not
done again; methods that are not asked for keep what those files say of them.
"""

import argparse
import json
import pathlib
import random
import sys
from collections.abc import Mapping, Sequence

from prompt_tuning.data import custom, skills
from prompt_tuning.jobs import compare, comparison, comparison_report
from prompt_tuning.jobs.comparison import Comparison
from prompt_tuning.launch import command, flags, gin_config

HERE = pathlib.Path(__file__).parent
SKILLS = ("first", "last", "largest", "smallest")
# Changes to weights and activations, which every token meets, are slower to
# find an instruction than vectors before the text.
LONGER = "TRAIN_STEPS_RELATIVE=1200"
# Name -> its gin files, and other settings than theirs: the model is small.
METHODS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
  "prompt": (("prompts/from_sampled_vocab",), ("PROMPT_LENGTH=8",)),
  "wayward": (
    ("methods/wayward",),
    ("TASK_STRING='answer with one of the words'",),
  ),
  "prompt_sees_earlier": (
    ("prompts/from_sampled_vocab", "prompts/sight"),
    ("PROMPT_LENGTH=8", "PROMPT_SEES='earlier'"),
  ),
  "deep_prompt": (("methods/deep_prompt",), ("DEEP_PROMPT_LENGTH=8",)),
  "deep_prompt_add": (
    ("methods/deep_prompt",),
    ("DEEP_PROMPT_LENGTH=8", "DEEP_PROMPT_REPLACE=False"),
  ),
  "p_tuning": (
    ("methods/p_tuning",),
    ("P_TUNING_LENGTH=8", "P_TUNING_HIDDEN=48"),
  ),
  "p_tuning_mlp": (
    ("methods/p_tuning",),
    ("P_TUNING_LENGTH=8", "P_TUNING_HIDDEN=96", "P_TUNING_NETWORK='mlp'"),
  ),
  "mpt": (("methods/multitask_prompt",), ("PROMPT_LENGTH=8",)),
  "multitask_sum": (("methods/multitask_sum",), ("PROMPT_LENGTH=8",)),
  "multitask_concat": (
    ("methods/multitask_concat",),
    ("PROMPT_LENGTH=4", "TASK_LENGTH=4"),
  ),
  "multitask_features": (("methods/multitask_features",), ("PROMPT_LENGTH=8",)),
  "multitask_project": (("methods/multitask_project",), ("PROMPT_LENGTH=8",)),
  "prefix": (("methods/prefix",), (LONGER,)),
  "prefix_positions": (("methods/prefix",), ("PREFIX_POSITIONS=True",)),
  "prefix_mlp": (("methods/prefix_mlp",), ("PREFIX_POSITIONS=True",)),
  "lora": (("methods/lora",), (LONGER,)),
  "ia3": (("methods/ia3",), (LONGER,)),
  "norms": (("methods/norms",), (LONGER,)),
  "adapters": (("methods/adapters",), ("ADAPTER_WIDTH=16", LONGER)),
  "parallel_adapters": (
    ("methods/parallel_adapters",),
    ("ADAPTER_WIDTH=16", LONGER),
  ),
  "soft_words": (("methods/soft_words",), ("SOFT_WORDS_LENGTH=8",)),
  "warp": (("methods/warp",), ("LABEL_WORDS=ANSWERS",)),
  "hyperformer": (("methods/hyperformer",), ("HYPER_REDUCTION=8", LONGER)),
  "hyperformer_per_layer": (
    ("methods/hyperformer_per_layer",),
    # Every layer has maps of its own: 64 numbers would make millions a run.
    ("HYPER_REDUCTION=8", "HYPER_EMBEDDING=16", LONGER),
  ),
}
PERMUTED_SEEDS = (0,)
FIGURE = "figure.png"
_MARKERS = "os^Dx"  # of the skills, and of the control
ENOUGH, LEAST_GAIN = 95.0, 40.0  # percent: what the worst seed must have


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = options(__doc__)
  parser.add_argument(
    "--method", nargs="+", default=list(METHODS), choices=METHODS
  )
  given = parser.parse_args(argv)
  permuted = declare_permuted(pathlib.Path(given.work_dir, "permuted"))
  out = pathlib.Path(given.output_dir)
  for name in given.method:
    right = run(given, name, "right", ())
    tasks = f"MIXTURE_OR_TASK_NAME={permuted!r}"
    wrong = run(given, name, "permuted", (tasks, f"SEEDS={PERMUTED_SEEDS}"))
    if right is None or wrong is None:
      print("Stopped. The same command continues it.")
      return 1
    write(merged(read(out), {name: row(right, wrong)}), out)
  print(table(read(out)))
  return 0


def options(description: str | None) -> argparse.ArgumentParser:
  """Make the flags that the gate and what follows it share."""
  parser = argparse.ArgumentParser(description=description)
  add = parser.add_argument
  add("--work_dir", default="runs/methods")
  add("--output_dir", default=str(HERE))
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  return parser


def declare_permuted(folder: pathlib.Path) -> tuple[str, ...]:
  """Declare every skill again, its training answers being those of others.

  Args:
    folder: for the files.

  Returns:
    Names of the tasks; their validation and test splits are as they were.
  """
  folder.mkdir(parents=True, exist_ok=True)
  names = []
  for skill in SKILLS:
    paths = {}
    for split in ("train", "validation", "test"):
      rows = list(skills.examples(skill, split))
      if split == "train":
        answers = [example["targets"] for example in rows]
        random.Random(skill).shuffle(answers)
        rows = [
          {**example, "targets": answer}
          for example, answer in zip(rows, answers, strict=True)
        ]
      path = folder / f"{skill}_{split}.jsonl"
      lines = [json.dumps(example) for example in rows]
      path.write_text("\n".join(lines) + "\n", encoding="utf-8")
      paths[split] = str(path)
    names.append(
      custom.declare(
        f"permuted_{skill}",
        paths,
        "{inputs}",
        "targets",
        metrics=["exact_match"],
      ).name
    )
  return tuple(names)


def answers() -> tuple[str, ...]:
  """List all answers of all skills."""
  return tuple(
    sorted(
      {
        example["targets"]
        for skill in SKILLS
        for split in skills.SPLITS
        for example in skills.examples(skill, split)
      }
    )
  )


def run(
  given: argparse.Namespace, name: str, kind: str, bindings: Sequence[str]
) -> Comparison | None:
  """Train and score one method, unless that is done."""
  folder = pathlib.Path(given.work_dir, name, kind)
  if (folder / comparison.FILE).is_file():
    return comparison.read(folder)
  print(f"== {name}, {kind}", flush=True)
  argv = arguments(name, folder, (*bindings, *given.gin))
  job = command.configure("compare", flags.parse("compare", argv, ""))
  found = compare.compare(
    job, None, configuration=gin_config.texts(), say=lambda text: None
  )
  if found is not None:
    print(comparison_report.table(found), flush=True)
  return found


def arguments(
  name: str, folder: pathlib.Path, bindings: Sequence[str] = ()
) -> list[str]:
  """Write the arguments of `compare` for a method.

  Args:
    name: of `METHODS`.
    folder: for the trainings.
    bindings: further gin settings.

  Returns:
    The words after `prompt-tuning compare`.
  """
  files, settings = METHODS[name]
  # Skills have no label words: every answer that there is, is a class.
  settings = tuple(s.replace("ANSWERS", repr(answers())) for s in settings)
  return [
    "--gin_file=models/embedded.gin",
    *(f"--gin_file={file}.gin" for file in files),
    f"--gin_file={HERE / 'gate.gin'}",
    f"--gin.MODEL_DIR={str(folder)!r}",
    *(f"--gin.{binding}" for binding in (*settings, *bindings)),
  ]


def row(right: Comparison, wrong: Comparison) -> dict[str, object]:
  """Condense what a method reached: the worst of its seeds on every skill."""
  (title,) = right.trained
  scores = {task: right.of(title, task) for task in right.tasks}
  worst = {task: min(found) for task, found in scores.items()}
  plain = {task: right.of(comparison.PLAIN, task)[0] for task in right.tasks}
  misled = {task: max(wrong.of(title, task)) for task in wrong.tasks}
  steered = all(
    score >= ENOUGH and score - plain[task] >= LEAST_GAIN
    for task, score in worst.items()
  )
  return {
    "method": title,
    "trained": right.trained[title],
    "steps": right.steps[title],
    "scores": scores,
    "worst": worst,
    "mean": right.mean(title),
    "frozen_model": plain,
    "permuted": misled,
    "recovers_all": steered,
    "learns_from_permuted": max(misled.values()) >= ENOUGH,
    "frozen_unchanged": right.frozen and wrong.frozen,
    "seconds": right.seconds[title],
  }


def read(folder: pathlib.Path) -> dict[str, dict]:
  """Read what `write` wrote; nothing, where it never did."""
  path = folder / "results.json"
  if not path.is_file():
    return {}
  found: dict[str, dict] = json.loads(path.read_text(encoding="utf-8"))
  return found


def merged(
  before: Mapping[str, dict], new: Mapping[str, dict]
) -> dict[str, dict]:
  """Put new rows beside older ones, in the order of `METHODS`.

  Args:
    before: method -> its row; those that `METHODS` lacks are left out.
    new: the same; these count where both have a method.

  Returns:
    The rows of both.
  """
  both = {**before, **new}
  return {name: both[name] for name in METHODS if name in both}


def write(results: Mapping[str, dict], folder: pathlib.Path) -> None:
  """Write the numbers, the table and the plot."""
  save(results, folder / "results.json", table(results), folder / "table.md")
  draw(results, folder / FIGURE)


def save(
  results: Mapping[str, dict],
  numbers: pathlib.Path,
  lines: str,
  page: pathlib.Path,
) -> None:
  """Write numbers as JSON, and their table."""
  text = json.dumps(results, indent=1) + "\n"
  numbers.parent.mkdir(parents=True, exist_ok=True)
  numbers.write_text(text, encoding="utf-8")
  page.write_text(lines, encoding="utf-8")


def table(results: Mapping[str, dict]) -> str:
  """Write a line per method."""
  heads = ["", "numbers of a run", "steps", *SKILLS]
  heads += ["mean of all seeds", "permuted, at most", "recovers all"]
  lines = [
    f"| {' | '.join(heads)} |",
    "|---" + "|---:" * (len(heads) - 1) + "|",
  ]
  for name, found in results.items():
    cells = [
      name,
      f"{found['trained']:,}",
      f"{found['steps']:,}",
      *(f"{score:.1f}" for score in found["worst"].values()),
      f"{found['mean']:.1f}",
      f"{max(found['permuted'].values()):.1f}",
      "yes" if found["recovers_all"] else "no",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def draw(results: Mapping[str, dict], path: pathlib.Path) -> None:
  """Draw the worst seed of every method on every skill, and the control.

  Args:
    results: method -> its row.
    path: of the PNG.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 0.3 * len(results) + 1.4), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  axes = figure.subplots()
  series = {
    skill: [found["worst"][f"skill_{skill}"] for found in results.values()]
    for skill in SKILLS
  }
  series["permuted answers, at most"] = [
    max(found["permuted"].values()) for found in results.values()
  ]
  for number, (label, scores) in enumerate(series.items()):
    # Equal scores of skills would hide one another: one line for each.
    up = 0.15 * (number - 1.5) if label in SKILLS else 0.0
    axes.plot(
      scores,
      [place + up for place in range(len(scores))],
      marker=_MARKERS[number],
      linestyle="",
      color="k" if label in SKILLS else "grey",
      markerfacecolor="none",
      label=label,
    )
  axes.axvline(ENOUGH, color="grey", linestyle="--", linewidth=1)
  axes.set_yticks(range(len(results)), list(results))
  axes.set_ylim(len(results) - 0.5, -0.5)
  axes.set_xlim(0, 103)
  axes.set_xlabel(f"worst of five seeds, %; recovered from {ENOUGH:.0f}")
  axes.grid(alpha=0.3)
  figure.legend(loc="outside upper center", ncols=len(series), fontsize="small")
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
