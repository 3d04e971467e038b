"""Print the Python of a document: `python -m docs.generate.examples FILE`."""

import pathlib
import re
import sys


def python(path: str) -> str:
  """Join the Python blocks of a document, in their order."""
  text = pathlib.Path(path).read_text(encoding="utf-8")
  return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))


if __name__ == "__main__":
  print(python(sys.argv[1]))
