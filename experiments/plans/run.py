"""The smallest slice of each TPU generation that trains each T5 1.1.

  pip install '.[plan]'
  JAX_PLATFORMS=cpu python -m experiments.plans.run

For every size, generation, and prompt or model tuning: slices from one chip on,
each with the least model parallelism that fits, until one does. Every answer is
a compilation by the real TPU compiler (`prompt-tuning plan`), in a process of
its own. Slices that the weights alone fill, with as large gradients where the
model trains, are left out, not compiled. Answers are kept in
`results.json`, which a second run continues; `table.md` is made from it.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import cost
from prompt_tuning.plans import chips, compiled_cost

HERE = pathlib.Path(__file__).parent
SIZES = ("small", "base", "large", "xl", "xxl")
GENERATIONS = ("v5e", "v5p", "v6e")
METHODS = ("prompt", "model")
GIB = 1 << 30
# Bytes that a parameter takes at least: bfloat16 where it is frozen, float32
# with as large a gradient where it trains.
BYTES = {"prompt": 2, "model": 8}


def command(
  size: str,
  method: str,
  topology: str,
  mesh: str | None = None,
  **changes: str,
) -> list[str]:
  """Write the command line of one plan.

  Args:
    size: of T5 1.1.
    method: `prompt` or `model`.
    topology: such as `v5e:4x4`.
    mesh: of `gin/meshes`; None for `data`, or `fully_sharded` where the model
      trains.
    **changes: macros of gin, in gin's text.

  Returns:
    Its words.
  """
  suffix = "_prompt" if method == "prompt" else ""
  run = "prompt_finetune" if method == "prompt" else "model_tuning"
  gin = {
    "MIXTURE_OR_TASK_NAME": "'taskless_super_glue_rte_v102'",
    "TASK_FEATURE_LENGTHS": "{'inputs': 512, 'targets': 16}",
    "BATCH_SIZE": "32",
    "TRAIN_STEPS": "1",
    "RESTORE_DTYPE": "'bfloat16'" if method == "prompt" else "'float32'",
    "SCAN_LAYERS": "True",
    "REMAT": "'full'",
  }
  if method == "model":
    gin["MODEL_PARALLEL"] = "1"  # `--meshes first` tries others
  # A model that trains, and its optimizer's state, is split over all chips.
  mesh = mesh or ("data" if method == "prompt" else "fully_sharded")
  gin |= changes
  return [
    *(sys.executable, "-m", "prompt_tuning.launch.main", "plan"),
    *("--topology", topology, "--meshes", "first", "--json"),
    f"--gin_file=models/t5_1_1_{size}{suffix}.gin",
    f"--gin_file=runs/{run}.gin",
    f"--gin_file=meshes/{mesh}.gin",
    *(f"--gin.{name}={value}" for name, value in gin.items()),
  ]


def topologies(size: str, method: str, generation: str) -> list[str]:
  """List slices of a generation that the weights leave room in."""
  config = t5_config.get(f"t5_1_1_{size}")
  parameters = sum(cost.count_parameters(config).values())
  least = parameters * BYTES[method]
  found = []
  for where in chips.slices(generation):
    if least < where.count * where.chip.memory:
      found.append(str(where))
  return found


def smallest(size: str, method: str, generation: str) -> dict[str, Any] | None:
  """Find the first slice that fits, and what it takes."""
  for topology in topologies(size, method, generation):
    answer = ask(command(size, method, topology))
    if method == "prompt":
      refuse_weight_gradients(size, answer)
    print(topology, size, method, answer["best"] is not None, flush=True)
    if answer["best"] is not None:
      return answer
  return None


def ask(words: list[str]) -> dict[str, Any]:
  """Run `prompt-tuning plan` in a process of its own.

  Args:
    words: of the command line.

  Returns:
    Its answer; `best` is None where nothing fits.

  Raises:
    RuntimeError: it gave none.
  """
  done = subprocess.run(words, capture_output=True, text=True)
  if not done.stdout:  # neither that it fits nor that it does not
    raise RuntimeError(done.stderr[-2000:])
  answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
  return answer


def most_reduced(size: str) -> int:
  """Count bytes that prompt tuning adds up over chips with different rows.

  Args:
    size: of T5 1.1.

  Returns:
    Those of the prompt's gradient, 100 float32 rows, and of sixteen numbers:
    sums of the loss and the like.
  """
  return 4 * (100 * t5_config.get(f"t5_1_1_{size}").emb_dim + 16)


def refuse_weight_gradients(size: str, answer: dict[str, Any]) -> None:
  """Insist that prompt tuning's programs send no gradient of weights.

  Args:
    size: of T5 1.1.
    answer: of `prompt-tuning plan`.

  Raises:
    RuntimeError: more is added up over chips than `most_reduced`.
  """
  most = most_reduced(size)
  for plan in answer["plans"]:
    if not plan["fits"]:
      continue
    # A TPU also adds up parts of large products by sending them round.
    permuted = plan["collectives"].get(compiled_cost.PERMUTE, {"bytes": 0})
    reduced = plan["reduced_over_data"] + permuted["bytes"]
    if reduced > most:
      raise RuntimeError(
        f"{size} on {answer['topology']}, {plan['data']} x {plan['model']}: "
        f"{reduced:.0f} bytes may be added up over chips with "
        f"different rows; expected at most {most}, the prompt's gradient. The "
        "step computes gradients of frozen weights, or splits products over "
        "rows' chips."
      )


def row(key: str, answer: dict[str, Any] | None) -> list[str]:
  """Lay out one line of the table."""
  size, method, generation = key.split("/")
  if answer is None:
    return [size, method, generation, "none tried fits", *[""] * 7]
  plan = next(one for one in answer["plans"] if one["fits"])
  collectives = ", ".join(
    f"{one['count']} {kind} of {one['bytes'] / GIB:.2f}"
    for kind, one in plan["collectives"].items()
  )
  limit, seconds = max(plan["at_least"].items(), key=lambda item: item[1])
  return [
    *(size, method, generation, answer["topology"]),
    f"{plan['data']} x {plan['model']}",
    *(f"{plan[name] / GIB:.2f}" for name in ("weights", "trained")),
    *(f"{plan[name] / GIB:.2f}" for name in ("temporaries", "total")),
    collectives or "none",
    f"{1e3 * seconds:.0f} ms ({limit})",
  ]


def table(results: dict[str, Any]) -> str:
  """Lay out all results, prompt and model tuning side by side."""
  header = ["T5 1.1", "tuning", "TPU", "smallest slice", "data x model"]
  header += ["weights", "trained", "temporaries", "total"]
  header += ["collectives (GiB)", "step takes at least"]
  order = [f"{s}/{m}/{g}" for s in SIZES for g in GENERATIONS for m in METHODS]
  lines = [header, ["---"] * len(header)]
  lines += [row(key, results[key]) for key in order if key in results]
  return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(argv: Sequence[str]) -> int:
  """Plan what is missing, then write the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--size", nargs="+", choices=SIZES, default=list(SIZES))
  add("--generation", nargs="+", choices=GENERATIONS, default=list(GENERATIONS))
  add("--method", nargs="+", choices=METHODS, default=list(METHODS))
  given = parser.parse_args(argv)
  file = HERE / "results.json"
  results = json.loads(file.read_text()) if file.exists() else {}
  for method in given.method:
    for size in given.size:
      for generation in given.generation:
        key = f"{size}/{method}/{generation}"
        if key not in results:
          results[key] = smallest(size, method, generation)
          file.write_text(json.dumps(results, indent=1) + "\n")
  (HERE / "table.md").write_text(table(results))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
