"""Text on a screen."""


def shortened(line: str, width: int) -> str:
  """Cut a line to a width, in characters; a cut line ends in "…"."""
  if len(line) <= width:
    return line
  return line[: max(width - 1, 0)] + "…"


def printable(line: str) -> str:
  """Write what a terminal would take for a command as Python's escapes."""
  return "".join(
    character if character.isprintable() else ascii(character)[1:-1]
    for character in line
  )
