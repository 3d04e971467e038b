"""What becomes of OpenPrompt's files: a table of every one of them.

  python -m experiments.kpt.files ../shared/data/verbalizers VOCABULARY

Writes `files.md`: how many templates or lists of label words each file has,
which are refused and why, and what the ways to score lose of the words.
"""

import pathlib
import sys
from collections import Counter
from collections.abc import Sequence

from prompt_tuning.jobs import word_files

HERE = pathlib.Path(__file__).parent
COLUMNS = {
  "words": "words",
  "one piece": "one piece",
  "same first piece": "first piece of another class, too",
  "unknown": "lacking",
  "in two classes": "in two classes",
}
# What a refusal says -> in a word.
REASONS = {
  "'post_processing' is a lambda": "lambda",
  "'special' names a token": "token of another vocabulary",
  "1 class; expected two": "all classes on a line",
  "is another word in every row": "another word in every row",
  "the file has no lines": "empty",
}


def main(argv: Sequence[str]) -> int:
  """Write the table.

  Args:
    argv: the folder of files, and a vocabulary.

  Returns:
    The process's exit status.
  """
  (HERE / "files.md").write_text(table(*argv), encoding="utf-8")
  return 0


def table(folder: str, vocabulary: str) -> str:
  """Describe every file of a folder in a line.

  Args:
    folder: of templates and label words, as OpenPrompt has them.
    vocabulary: file of a vocabulary.

  Returns:
    A Markdown table. Of several lists of one file, numbers are sums.
  """
  read: dict[str, Counter[str]] = {}
  *lines, _ = word_files.lines([folder], vocabulary)
  for line in lines:
    place, _, rest = line.partition("  ")
    name = place.removeprefix(f"{folder}/").rpartition(" [")[0] or place
    found = read.setdefault(name.removeprefix(f"{folder}/"), Counter())
    if rest.startswith("refused: "):
      (reason,) = (why for said, why in REASONS.items() if said in rest)
      found[f"refused: {reason}"] += 1
    else:
      found["templates" if rest.startswith("masks") else "lists"] += 1
      words = rest.split("  ")
      for key in COLUMNS:
        values = [w.removeprefix(key) for w in words if w.startswith(key)]
        found[key] += sum(int(v) for v in values if v.strip().isdigit())
  heads = ["file", "templates", "lists", *COLUMNS.values(), "refused"]
  rows = [f"| {' | '.join(heads)} |", "|---" + "|---:" * 7 + "|---|"]
  for name, found in sorted(read.items()):
    numbers = [found["templates"], found["lists"]]
    numbers += [found[key] for key in COLUMNS]
    why = [
      f"{count} {key.removeprefix('refused: ')}"
      for key, count in found.items()
      if key.startswith("refused: ")
    ]
    cells = [name, *(str(n or "") for n in numbers), ", ".join(why)]
    rows.append(f"| {' | '.join(cells)} |")
  return "\n".join(rows) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
