"""What trains XXL's prompts on one small chip, and banks of them on a few.

  pip install '.[plan]'
  JAX_PLATFORMS=cpu python -m experiments.plans.small_chips

Frozen weights as integers, rows in microbatches, sixteen prompts at once, and
weights split over all chips. Every answer is kept in `small_chips.json`, which
a second run continues; `small_chips.md` is made from it.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from experiments.plans import run

HERE = pathlib.Path(__file__).parent
MICROBATCHES = (1, 2, 4, 8, 16, 32)
BANK = 16


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table.

  Attributes:
    size: of T5 1.1.
    what: is special about it.
    topology: of the slice.
    changes: macros of gin, in gin's text.
    mesh: of `gin/meshes`.
    microbatches: numbers to try in turn, until one fits.
  """

  size: str
  what: str
  topology: str
  changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  mesh: str = "data"
  microbatches: tuple[int, ...] = MICROBATCHES

  @property
  def key(self) -> str:
    """Its name in the results."""
    return f"{self.size}/{self.what}/{self.topology}"


def rows() -> list[Row]:
  """List the table's lines."""
  found = []
  for topology in ("v5e:1x1", "v6e:1x1"):
    for scheme in ("int8", "int4"):
      frozen = {"RESTORE_DTYPE": repr(scheme)}
      found.append(Row("xxl", f"{scheme} weights", topology, frozen))
  # Sixteen runs of four rows: as many rows in a step as one run of 64. At most
  # 32 of them at a time, with which `results.json` has both slices nearly full.
  bank = {"SEEDS": repr(tuple(range(BANK))), "BATCH_SIZE": "4"}
  for topology in ("v6e:1x1", "v5e:2x2"):
    found.append(
      Row("xxl", f"bank of {BANK}", topology, bank, microbatches=(2, 4, 8))
    )
  found.append(Row("xxl", f"bank of {BANK}", "v5p:1x1x1", bank))
  for topology in ("v5e:2x2", "v6e:2x2"):
    for size in run.SIZES:
      split = {"MODEL_PARALLEL": "1"}
      found.append(
        Row(size, "fully sharded", topology, split, "fully_sharded", (1, 2, 4))
      )
  return found


def make(row: Row) -> dict[str, Any]:
  """Plan one row with the fewest microbatches that fit.

  Args:
    row: of the table.

  Returns:
    The plan's answer, and `microbatches`; those tried last where none fits.
  """
  for number in row.microbatches:
    changes = {**row.changes, "NUM_MICROBATCHES": str(number)}
    words = run.command(row.size, "prompt", row.topology, row.mesh, **changes)
    answer = run.ask(words) | {"microbatches": number}
    print(row.key, number, answer["best"], flush=True)
    if answer["best"] is not None:
      break
  return answer


def table(results: Mapping[str, dict[str, Any]]) -> str:
  """Lay out all results."""
  header = ["T5 1.1", "what", "slice", "rows at a time", "data x model"]
  header += ["weights", "temporaries", "total", "a step takes at least"]
  lines = [header, ["---"] * len(header)]
  lines += [
    _line(row, results[row.key]) for row in rows() if row.key in results
  ]
  return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(row: Row, answer: Mapping[str, Any]) -> list[str]:
  batch = int(row.changes.get("BATCH_SIZE", "32"))
  runs = BANK if "SEEDS" in row.changes else 1
  split = batch * runs // answer["microbatches"]
  start = [row.size, row.what, row.topology]
  if answer["best"] is None:
    return [*start, f"{split} do not fit", *[""] * 5]
  plan = next(one for one in answer["plans"] if one["fits"])
  limit, seconds = max(plan["at_least"].items(), key=lambda item: item[1])
  return [
    *start,
    f"{split} of {batch * runs}",
    f"{plan['data']} x {plan['model']}",
    *(
      f"{plan[name] / run.GIB:.2f}"
      for name in ("weights", "temporaries", "total")
    ),
    f"{1e3 * seconds:.0f} ms ({limit})",
  ]


def main() -> int:
  """Plan what is missing, then write the table."""
  file = HERE / "small_chips.json"
  results = json.loads(file.read_text()) if file.exists() else {}
  for row in rows():
    if row.key not in results:
      results[row.key] = make(row)
      file.write_text(json.dumps(results, indent=1) + "\n")
  (HERE / "small_chips.md").write_text(table(results))
  return 0


if __name__ == "__main__":
  sys.exit(main())
