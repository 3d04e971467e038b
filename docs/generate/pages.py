"""Write the generated pages: `python -m docs.generate.pages`."""

import pathlib

from docs.generate import api, deviations, flags, macros, tasks

FOLDER = pathlib.Path(__file__).parents[1] / "reference"


def pages() -> dict[str, str]:
  """Make every page: name of the file -> text."""
  return {
    "commands.md": flags.page(),
    "settings.md": macros.page(),
    "python.md": api.page(),
    "methods.md": api.methods_page(),
    "tasks.md": tasks.page(),
    "deviations.md": deviations.page(),
  }


def write(folder: pathlib.Path = FOLDER) -> None:
  """Write every page whose text changed."""
  folder.mkdir(exist_ok=True)
  for name, text in pages().items():
    path = folder / name
    if not path.exists() or path.read_text(encoding="utf-8") != text:
      path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
  write()
