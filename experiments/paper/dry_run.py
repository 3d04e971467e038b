"""Build every cell of every folder's `paper.gin`, as its sweep would.

  python -m experiments.paper.dry_run

Configurations, names of data, and shapes; no model, no data, no accelerator.
All folders share two minutes of CPU time.
"""

import pathlib
import sys
import time
from collections.abc import Sequence

from prompt_tuning.launch import main as program

HERE = pathlib.Path(__file__).parent
LIMIT = 120.0  # seconds of CPU time


def main() -> int:
  """Dry-run all folders.

  Returns:
    The process's exit status: 1 where a folder fails, or all take too long.
  """
  failed, started = [], time.process_time()
  for name in folders():
    before = time.process_time()
    if program.main(arguments(name)):
      failed.append(name)
    print(f"{name}: {time.process_time() - before:.1f} s of CPU time\n")
  seconds = time.process_time() - started
  print(f"all {len(folders())} folders: {seconds:.0f} s of CPU time")
  if failed:
    print(f"failed: {', '.join(failed)}", file=sys.stderr)
  return 1 if failed or seconds > LIMIT else 0


def folders() -> Sequence[str]:
  """List the experiments that are sweeps at the paper's scale."""
  files = HERE.parent.glob("*/paper.gin")
  sweeps = [path for path in files if "sweep.axes" in path.read_text("utf-8")]
  return sorted(path.parent.name for path in sweeps)


def arguments(name: str) -> list[str]:
  """Write the words of a folder's dry run.

  Args:
    name: of the folder.

  Returns:
    The words after `prompt-tuning`.
  """
  return ["sweep", f"--gin_file=experiments/{name}/paper.gin", "--dry_run"]


if __name__ == "__main__":
  sys.exit(main())
