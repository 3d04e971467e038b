"""Parameters of all tuning methods, by size of the model: the paper's Figure 4.

  python -m experiments.figure4_methods.run

Nothing is trained, and no weight is read: every method that has a file in
`gin/methods` is built abstractly on the sizes of both scales, and what would
train, and what would be left of it for inference, is counted.
"""

import json
import math
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.core import algebra, embedded, tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.types import Array, Params
from prompt_tuning.data import vocabulary
from prompt_tuning.jobs import identity
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.launch import flags, sweep
from prompt_tuning.models.t5 import cost
from prompt_tuning.tuners import bank
from prompt_tuning.tuners.initializers import InitializerContext

HERE = pathlib.Path(__file__).parent
GIN = HERE.parents[1] / "gin"
SCALES = {"paper": "T5 1.1", "ladder": "the ladder"}
PROMPT = "prompts/from_sampled_vocab.gin"
# The paper's lengths at its scale; shorter ones, as the models are, on ours.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
  "paper": {
    "PROMPT_LENGTH": 100,
    "PREFIX_LENGTH": 100,
    "DEEP_PROMPT_LENGTH": 100,
    "P_TUNING_LENGTH": 100,
    "SOFT_WORDS_LENGTH": 100,
    "TASK_STRING": "the " * 100,
    "LABEL_WORDS": ("False", "True"),
    "KNOWPROMPT_SUBJECT_TYPES": ("person",),
    "KNOWPROMPT_OBJECT_TYPES": ("person",),
  },
  "ladder": {
    "PROMPT_LENGTH": 8,
    "PREFIX_LENGTH": 8,
    "DEEP_PROMPT_LENGTH": 8,
    "P_TUNING_LENGTH": 8,
    "P_TUNING_HIDDEN": 48,
    "SOFT_WORDS_LENGTH": 8,
    "ADAPTER_WIDTH": 16,
    "HYPER_REDUCTION": 8,
    "TASK_STRING": "the " * 8,
    "LABEL_WORDS": ("no", "yes"),
    "KNOWPROMPT_SUBJECT_TYPES": ("person",),
    "KNOWPROMPT_OBJECT_TYPES": ("person",),
  },
}
# In words, which are token ids: the paper, section 4.
DESIGN = (500, 2_000)
_MARKERS = "osD^v"


def main() -> int:
  """Count, and write the results.

  Returns:
    The process's exit status.
  """
  rows: list[dict[str, Any]] = []
  left_out = {}
  for scale in SCALES:
    for file in method_files():
      try:
        rows += count(scale, file)
      except ValueError as error:
        left_out[file] = str(error)
        print(f"Left out: {file}: {error}", file=sys.stderr)
  content = {"rows": rows, "left_out": sorted(left_out)}
  text = json.dumps(content, indent=1) + "\n"
  (HERE / "results.json").write_text(text, encoding="utf-8")
  (HERE / "table.md").write_text(table(rows), encoding="utf-8")
  draw(rows, HERE / "figure.png")
  return 0


def method_files() -> list[str]:
  """List the gin files of methods of frozen models, that of prompts first."""
  files = sorted(path for path in (GIN / "methods").glob("*.gin"))
  tuning = [path for path in files if _is_frozen(_text(path))]
  return [PROMPT, *(str(path.relative_to(GIN)) for path in tuning)]


def _is_frozen(text: str) -> bool:
  """Say whether a method's file trains the method, and not the model too."""
  rules = re.findall(r"^PARTITION_RULES = (\S+)", text, re.MULTILINE)
  return "TUNER = @" in text and set(rules) == {"%partition.TUNER_ONLY"}


def _text(path: pathlib.Path) -> str:
  """Read a gin file and those that it includes."""
  text = path.read_text(encoding="utf-8")
  included = re.findall(r'^include "([^"]+)"', text, re.MULTILINE)
  return "\n".join([text, *(_text(GIN / name) for name in included)])


def name_of(file: str) -> str:
  """Name the method of a gin file.

  Args:
    file: of the method.
  """
  name = pathlib.PurePath(file).stem.replace("_", " ")
  return "prompt" if file == PROMPT else name


def count(scale: str, file: str) -> list[dict[str, Any]]:
  """Count the parameters of a method on every size.

  Args:
    scale: `ladder` or `paper`.
    file: of the method.

  Returns:
    A row per size.
  """
  argv = [
    f"--gin_file=experiments/{HERE.name}/{scale}.gin",
    # Words are looked up in any vocabulary; counts do not depend on it.
    f"--gin.VOCABULARY_FILE={embedded.DEFAULT!r}",
  ]
  argv.append(f"--gin_file={file}")
  text = _text(GIN / file)
  argv += [
    f"--gin.{macro}={value!r}"
    for macro, value in SETTINGS[scale].items()
    if re.search(rf"^{macro} = ", text, re.MULTILINE)
  ]
  job = sweep.configure(flags.parse("sweep", argv, ""))
  return [
    {
      "scale": scale,
      "method": name_of(file),
      "size": cell.values["@size"],
      "model": sum(cost.count_parameters(cell.job.experiment.model).values()),
      **_numbers(cell.job),
    }
    for cell in job.cells
  ]


def _numbers(job: TrainJob) -> dict[str, int]:
  """Count what a run trains, and what its delta holds in the end."""
  model, (method,) = job.experiment.model, job.experiment.tuners
  method = identity.without_initialisers(method)
  # Shapes of some methods follow from words, of two classes here.
  words = vocabulary.load(embedded.DEFAULT)
  table = jax.ShapeDtypeStruct((model.vocab_size, model.emb_dim), "float32")

  def learn(table: Array) -> tuple[Params, Delta]:
    context = InitializerContext(
      embeddings=table,
      tokenize=words.encode,
      label_words=("yes", "no"),
      soft_pieces=(None, None),  # a template around two arguments
      output_rows=lambda ids: table[jnp.asarray(ids)],
      warn=lambda _: None,
    )
    params = bank.init_bank([method], [jax.random.key(0)], [context]).params
    return params, bank.apply_bank(method, params)

  params, delta = jax.eval_shape(learn, table)
  return {
    "trained": sum(
      math.prod(leaf.shape)
      for path, leaf in tree.flatten(params).items()
      if path.split("/")[0] not in type(method).constants
    ),
    "exported": sum(
      math.prod(array.shape) for array in algebra.named_leaves(delta).values()
    ),
  }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lay the counts out in Markdown.

  Args:
    rows: see `count`.

  Returns:
    A table for each scale: what trains, as a share too, and what is left.
  """
  return "\n".join(_of_scale(rows, scale) for scale in SCALES)


def _of_scale(rows: Sequence[Mapping[str, Any]], scale: str) -> str:
  own = [row for row in rows if row["scale"] == scale]
  sizes = list(dict.fromkeys(row["size"] for row in own))
  ends = (sizes[0], sizes[-1])
  heads = ["method", *(f"trained, {size}" for size in sizes)]
  heads += [f"share, {size}" for size in ends]
  heads.append(f"in an export, {sizes[-1]}")
  lines = [
    f"| {' | '.join(heads)} |",
    "|---" + "|---:" * (len(heads) - 1) + "|",
  ]
  for method, by_size in by_method(own).items():
    cells = [method, *(f"{by_size[size]['trained']:,}" for size in sizes)]
    cells += [f"{share(by_size[size]):.4f} %" for size in ends]
    cells.append(f"{by_size[sizes[-1]]['exported']:,}")
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def by_method(
  rows: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, Mapping[str, Any]]]:
  """Group rows of one scale by method, those with least parameters first.

  Args:
    rows: see `count`.

  Returns:
    Method -> size -> row.
  """
  grouped: dict[str, dict[str, Mapping[str, Any]]] = {}
  for row in rows:
    grouped.setdefault(row["method"], {})[row["size"]] = row
  largest = rows[-1]["size"]
  order = sorted(grouped, key=lambda name: grouped[name][largest]["trained"])
  return {name: grouped[name] for name in order}


def share(row: Mapping[str, Any]) -> float:
  """Return what trains in percent of the frozen model.

  Args:
    row: see `count`.
  """
  return float(100 * row["trained"] / row["model"])


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Draw the numbers of every method, a marker for each size.

  Args:
    rows: see `count`.
    path: of the PNG.
  """
  # Not at the top: slow to import.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  names = list(by_method([r for r in rows if r["scale"] == "paper"]))
  shown = ["prompt design (token ids)", *names, "model tuning"]
  place = {name: number for number, name in enumerate(shown)}
  figure = Figure(figsize=(11, 0.3 * len(shown) + 1.2), layout="constrained")
  canvas = FigureCanvasAgg(figure)
  plots = figure.subplots(1, len(SCALES), sharey=True)
  for plot, (scale, title) in zip(plots, SCALES.items(), strict=True):
    own = [row for row in rows if row["scale"] == scale]
    sizes = list(dict.fromkeys(row["size"] for row in own))
    for marker, size in zip(_MARKERS, sizes, strict=True):
      members = [row for row in own if row["size"] == size]
      numbers = {row["method"]: row["trained"] for row in members}
      numbers["model tuning"] = members[0]["model"]
      plot.plot(
        list(numbers.values()),
        [place[name] for name in numbers],
        marker=marker,
        linestyle="",
        color="k",
        markerfacecolor="none",
        label=size,
      )
    if scale == "paper":
      plot.plot(DESIGN, [place[shown[0]]] * 2, "k-", linewidth=2)
    plot.set(xscale="log", title=title, xlabel="numbers that train for a task")
    plot.grid(alpha=0.3)
    plot.legend(fontsize="small", loc="lower right")
  plots[0].set_yticks(range(len(shown)), shown)
  canvas.print_png(str(path))


if __name__ == "__main__":
  sys.exit(main())
