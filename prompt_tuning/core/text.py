"""Text on a screen."""


def shortened(line: str, width: int) -> str:
  """Cut a line to a width, in characters; a cut line ends in "…"."""
  if len(line) <= width:
    return line
  return line[: max(width - 1, 0)] + "…"
