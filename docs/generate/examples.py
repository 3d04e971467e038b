"""The Python of a document as a program, with the files that it reads.

`python -m docs.generate.examples README.md FOLDER` writes `example.py`, and for
what README calls a user's own data `train.jsonl` and `dev.jsonl`.
"""

import itertools
import json
import pathlib
import re
import sys

from prompt_tuning.data import skills

_ROWS = {"train": ("train", 512), "dev": ("validation", 64)}


def python(path: pathlib.Path) -> str:
  """Join the Python blocks of a document, in their order."""
  text = path.read_text(encoding="utf-8")
  return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


def rows(split: str, count: int) -> list[dict[str, str]]:
  """Make rows of the kind of which README shows the first."""
  made = itertools.islice(skills.examples("last", split), count)
  return [{"words": row["inputs"], "answer": row["targets"]} for row in made]


def write(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Write the program of a document, and its data."""
  (folder / "example.py").write_text(python(path), encoding="utf-8")
  for name, (split, count) in _ROWS.items():
    lines = [f"{json.dumps(row)}\n" for row in rows(split, count)]
    (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
  write(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
