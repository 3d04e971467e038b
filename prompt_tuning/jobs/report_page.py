"""One HTML page without scripts, pictures or external resources.

It has tables, charts as SVG, and texts that fold. All texts are escaped,
because a model's answers may be anything.
"""

import html
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# Eight colours that stand out on white and on black.
_COLOURS = (
  *("#3b82f6", "#f59e0b", "#10b981", "#ef4444"),
  *("#8b5cf6", "#14b8a6", "#ec4899", "#84cc16"),
)
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 32, 28, 44  # around a chart's lines
_TICKS = 5
_NAMED = 8  # lines of one chart that a legend names
_LEAST, _MOST = sys.float_info.min, sys.float_info.max

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --paper: #ffffff;
  --line: #d5dbe1; --soft: #f4f6f8; --good: #047857; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --paper: #14181d; --line: #3a424c; --soft: #1f252c;
    --good: #34d399; --bad: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
h3 { font-size: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
th { background: var(--soft); } td.number { text-align: right;
  font-variant-numeric: tabular-nums; }
tr.wrong td:first-child { color: var(--bad); }
tr.right td:first-child { color: var(--good); }
figure { margin: 1rem 0; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
@media (max-width: 40rem) { svg { font-size: 18px; } }
.legend span { margin-right: 1rem; white-space: nowrap; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem;
  font-size: .8rem; }
details { margin: .5rem 0; } summary { cursor: pointer; }
"""


class Line(NamedTuple):
  """A line of a chart, or separate points.

  Attributes:
    name: for the legend.
    points: (x, y), in order of x.
  """

  name: str
  points: Sequence[tuple[float, float]]


class Raw(str):
  """HTML that is not escaped."""

  __slots__ = ()


def page(title: str, parts: Iterable[str]) -> str:
  """Write a whole page.

  Args:
    title: plain text.
    parts: HTML, made by the functions below.
  """
  policy = "default-src 'none'; style-src 'unsafe-inline'"
  return "\n".join(
    [
      "<!doctype html>",
      '<html lang="en"><head><meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
      f"<title>{escaped(title)}</title>",
      f"<style>{_STYLE}</style></head><body>",
      f"<h1>{escaped(title)}</h1>",
      *parts,
      "</body></html>",
      "",
    ]
  )


def escaped(value: object) -> str:
  """Escape text, and replace characters that screens cannot show."""
  if isinstance(value, Raw):
    return value
  text = "".join(
    c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}"
    for c in str(value)
  )
  return html.escape(text)


def heading(text: str, level: int = 2) -> str:
  """Write a heading."""
  return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str) -> str:
  """Write a paragraph."""
  return f"<p>{escaped(text)}</p>"


def code(text: str) -> str:
  """Write text with its line breaks."""
  return f"<pre>{escaped(text)}</pre>"


def folded(title: str, parts: Iterable[str]) -> str:
  """Write text that a reader can unfold."""
  inside = "\n".join(parts)
  return f"<details><summary>{escaped(title)}</summary>\n{inside}\n</details>"


def table(
  head: Sequence[str],
  rows: Iterable[Sequence[object]],
  classes: Sequence[str] = (),
) -> str:
  """Write a table; numbers are right-aligned, None is an empty cell.

  Args:
    head: names of columns.
    rows: values.
    classes: of the rows, in order; none for none.
  """
  lines = ["".join(f"<th>{escaped(name)}</th>" for name in head)]
  lines[0] = f"<tr>{lines[0]}</tr>"
  for number, row in enumerate(rows):
    kind = f' class="{classes[number]}"' if classes else ""
    cells = "".join(map(_cell, row))
    lines.append(f"<tr{kind}>{cells}</tr>")
  return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def number(value: float | None, digits: int = 4) -> str:
  """Write a number for a reader."""
  if value is None:
    return ""
  if abs(value) < 1e15 and value == int(value):
    return f"{int(value):,}"
  return f"{value:.{digits}g}"


def chart(
  lines: Sequence[Line], x: str, y: str, joined: bool = True, log: bool = False
) -> str:
  """Draw lines.

  Args:
    lines: at least one point among them.
    x: what is on the horizontal axis.
    y: what is on the vertical one.
    joined: whether points are joined.
    log: whether the horizontal axis is logarithmic.

  Returns:
    An SVG with its legend; empty if there is nothing to draw.
  """
  lines = [_finite(line, log) for line in lines]
  lines = [line for line in lines if line.points]
  if not lines:
    return ""
  xs = [px for line in lines for px, _ in line.points]
  ys = [py for line in lines for _, py in line.points]
  across, up = _Scale.of(xs, log), _Scale.of(ys, False)
  shapes = [*_axes(across, up, x, y)]
  for k, line in enumerate(lines):
    colour = _COLOURS[k % len(_COLOURS)]
    at = [
      (_LEFT + across(px) * _across(), _TOP + (1 - up(py)) * _up())
      for px, py in line.points
    ]
    if joined and len(at) > 1:
      path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
      shapes.append(
        f'<polyline points="{path}" fill="none" stroke="{colour}" '
        'stroke-width="2"/>'
      )
    if not joined or len(at) < 30:
      shapes += [
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}">'
        f"<title>{escaped(line.name)}</title></circle>"
        for px, py in at
      ]
  label = escaped(f"{y} against {x}")
  return (
    f'<figure><svg role="img" aria-label="{label}" '
    f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(shapes)}</svg>'
    f"{_legend(lines)}</figure>"
  )


def bars(values: Mapping[str, float], unit: str) -> str:
  """Draw horizontal bars, one for each name.

  Args:
    values: name -> length, none below zero.
    unit: what they are.
  """
  if not values:
    return ""
  lengths = [v if 0 < v < math.inf else 0.0 for v in values.values()]
  height, most = 26, max(*lengths, 1e-12)
  shapes = []
  for k, (name, value) in enumerate(values.items()):
    top, width = k * height, lengths[k] / most * (_WIDTH - 300)
    shapes.append(
      f'<text x="214" y="{top + 17}" text-anchor="end" fill="currentColor">'
      f"{escaped(name[:34])}</text>"
      f'<rect x="220" y="{top + 4}" width="{width:.1f}" height="18" rx="2" '
      f'fill="{_COLOURS[0]}"/>'
      f'<text x="{226 + width:.1f}" y="{top + 17}" fill="currentColor">'
      f"{number(value)}</text>"
    )
  box = f"0 0 {_WIDTH} {height * len(values)}"
  return (
    f'<figure><svg role="img" aria-label="{escaped(unit)}" viewBox="{box}">'
    f"{''.join(shapes)}</svg></figure>"
  )


class _Scale(NamedTuple):
  """Maps values to places between 0 and 1.

  A loss that diverged may be close to the largest number, so differences are
  taken of halves.
  """

  low: float
  high: float
  log: bool

  @classmethod
  def of(cls, values: Sequence[float], log: bool) -> "_Scale":
    low, high = float(min(values)), float(max(values))
    largest = max(abs(low), abs(high))
    if high / 2 - low / 2 <= max(1e-9 * largest, _LEAST):
      around = max(1.0, largest / 100)
      low, high = (low / 2, high * 2) if log else (low - around, high + around)
    return cls(max(low, _LEAST if log else -_MOST), min(high, _MOST), log)

  def __call__(self, value: float) -> float:
    low, high = self.low, self.high
    if self.log:
      low, high, value = math.log(low), math.log(high), math.log(value)
    return (value / 2 - low / 2) / (high / 2 - low / 2)

  def ticks(self) -> list[float]:
    """Choose a few round values."""
    if self.log:
      low = math.ceil(math.log10(self.low) - 1e-9)
      high = math.floor(math.log10(self.high) + 1e-9)
      powers = [10.0**k for k in range(low, high + 1)]
      return powers if len(powers) > 1 else [self.low, self.high]
    step = 10.0 ** math.floor(
      math.log10(self.high / _TICKS - self.low / _TICKS)
    )
    width = next(
      step * f
      for f in (1, 2, 5, 10)
      if self.high / (step * f) - self.low / (step * f) <= _TICKS
    )
    first = math.ceil(self.low / width - 1e-9)
    last = math.floor(self.high / width + 1e-9)
    return [width * k for k in range(first, last + 1)]


def _across() -> float:
  return _WIDTH - _LEFT - _RIGHT


def _up() -> float:
  return _HEIGHT - _TOP - _BOTTOM


def _axes(across: _Scale, up: _Scale, x: str, y: str) -> list[str]:
  shapes = []
  base = _HEIGHT - _BOTTOM
  for value in up.ticks():
    at = _TOP + (1 - up(value)) * _up()
    shapes.append(
      f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="currentColor" '
      'opacity=".15"/>'
      f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" '
      f'fill="currentColor">{number(value, 3)}</text>'
    )
  for value in across.ticks():
    at = _LEFT + across(value) * _across()
    shapes.append(
      f'<text x="{at:.1f}" y="{base + 16}" text-anchor="middle" '
      f'fill="currentColor">{number(value, 3)}</text>'
    )
  shapes.append(
    f'<text x="{_LEFT + _across() / 2}" y="{_HEIGHT - 6}" text-anchor="middle" '
    f'fill="currentColor">{escaped(x)}</text>'
    f'<text x="4" y="16" fill="currentColor" opacity=".7">'
    f"{escaped(y)}</text>"
  )
  return shapes


def _legend(lines: Sequence[Line]) -> str:
  if len(lines) == 1 and not lines[0].name:
    return ""
  spans = [
    f'<span><svg viewBox="0 0 10 10" style="width:.7em" aria-hidden="true">'
    f'<circle cx="5" cy="5" r="5" fill="{_COLOURS[k % len(_COLOURS)]}"/></svg> '
    f"{escaped(line.name)}</span>"
    for k, line in enumerate(lines[:_NAMED])
  ]
  if len(lines) > _NAMED:
    spans.append(f"<span>and {len(lines) - _NAMED} more</span>")
  return f'<figcaption class="legend">{" ".join(spans)}</figcaption>'


def _finite(line: Line, log: bool) -> Line:
  points = [
    (x, y)
    for x, y in line.points
    if _is_drawn(x) and _is_drawn(y) and (x > 0 or not log)
  ]
  return Line(line.name, points)


def _is_drawn(value: float | None) -> bool:
  """Whether a value can be drawn; logs have None for what is not finite."""
  return value is not None and abs(value) <= _MOST


def _cell(value: object) -> str:
  if value is None:
    return "<td></td>"
  if isinstance(value, bool) or not isinstance(value, int | float):
    return f"<td>{escaped(value)}</td>"
  return f'<td class="number">{number(value)}</td>'
