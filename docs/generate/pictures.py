"""Pictures of where each method touches the model, as SVG.

`python -m docs.generate.pictures` writes them below docs/pictures; a test
compares.
"""

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

FOLDER = pathlib.Path(__file__).parents[1] / "pictures"
_WIDTH, _HEIGHT = 640, 280
_INK, _FRAME, _FROZEN, _LEARNED = "#1f2933", "#9aa5b1", "#e4e7eb", "#f0932b"
_TOKEN, _GAP = 16, 3


class Box(NamedTuple):
  """A rectangle: left, top, width, height."""

  x: float
  y: float
  width: float
  height: float


# What stands in the stacks, from the text up.
_ENCODER = {
  "enc_norm_0": Box(170, 192, 170, 10),
  "enc_self": Box(170, 154, 170, 34),
  "enc_norm_1": Box(170, 138, 170, 10),
  "enc_mlp": Box(170, 100, 170, 34),
  "enc_norm_2": Box(170, 64, 170, 10),
}
_DECODER = {
  "dec_norm_0": Box(410, 200, 190, 8),
  "dec_self": Box(410, 170, 190, 27),
  "dec_norm_1": Box(410, 156, 190, 8),
  "cross": Box(410, 126, 190, 27),
  "dec_norm_2": Box(410, 112, 190, 8),
  "dec_mlp": Box(410, 82, 190, 27),
  "dec_norm_3": Box(410, 64, 190, 8),
}
_HEAD = Box(410, 6, 190, 22)
_BOXES = {**_ENCODER, **_DECODER}
_TITLES = {
  "enc_self": "self-attention",
  "enc_mlp": "MLP",
  "dec_self": "self-attention",
  "cross": "cross-attention",
  "dec_mlp": "MLP",
}
_NORMS = tuple(name for name in _BOXES if "norm" in name)
_ATTENTIONS = ("enc_self", "dec_self", "cross")
_FOUR = ("enc_self", "enc_mlp", "dec_self", "dec_mlp")


class Touch(NamedTuple):
  """What a method adds to the frozen model.

  Attributes:
    before: virtual tokens before the text.
    around: arguments in the text with a virtual token on either side.
    after: virtual tokens behind the text.
    layers: whether vectors enter at every layer of the encoder.
    prefixes: attentions that get keys and values.
    marks: small boxes on sublayers: name -> letters.
    norms: whether norms have factors.
    head: text on learned rows of the output head.
    maker: what makes all of it while training.
    masks: answers that the decoder gives at once.
  """

  before: int = 0
  around: int = 0
  after: int = 0
  layers: bool = False
  prefixes: Sequence[str] = ()
  marks: tuple[tuple[str, str], ...] = ()
  norms: bool = False
  head: str = ""
  maker: str = ""
  masks: int = 1


def _on(names: Iterable[str], letters: str) -> tuple[tuple[str, str], ...]:
  return tuple((name, letters) for name in names)


PICTURES = {
  "prompt": Touch(before=4),
  "p_tuning": Touch(before=4, maker="LSTM or MLP"),
  "deep_prompt": Touch(before=4, layers=True),
  "prefix": Touch(prefixes=_ATTENTIONS),
  "prefix_mlp": Touch(prefixes=_ATTENTIONS, maker="MLP"),
  "lora": Touch(marks=_on(_ATTENTIONS, "Q+ab V+ab")),
  "ia3": Touch(
    marks=_on(_ATTENTIONS, "K, V x s")
    + _on(("enc_mlp", "dec_mlp"), "hidden x s")
  ),
  "adapters": Touch(marks=_on(_FOUR, "adapter")),
  "parallel_adapters": Touch(marks=_on(("enc_mlp", "dec_mlp"), "beside it")),
  "norms": Touch(norms=True),
  "multitask_sum": Touch(before=4, maker="shared + task"),
  "multitask_concat": Touch(before=4, maker="shared, then task"),
  "multitask_features": Touch(before=4, maker="features of both"),
  "multitask_project": Touch(before=4, maker="map of the task"),
  "multitask_prompt": Touch(before=4, maker="shared x task"),
  "soft_words": Touch(before=4, layers=True, maker="M prompts"),
  "wayward": Touch(before=4, maker="pulled to words"),
  "know_prompt": Touch(around=2, head="class rows"),
  "warp": Touch(before=2, after=2, head="class rows"),
  "word_weights": Touch(head="word weights"),
  "prompt_word_weights": Touch(before=4, head="word weights"),
  "rules": Touch(before=4, masks=3),
  "ppt": Touch(before=4, maker="plain text first"),
  "hyperformer": Touch(
    marks=_on(_FOUR, "adapter"), norms=True, maker="hypernetwork"
  ),
  "hyperformer_per_layer": Touch(
    marks=_on(_FOUR, "adapter"), norms=True, maker="a net per layer"
  ),
}


def draw(touch: Touch) -> str:
  """Draw the frozen model, and in colour what a method adds."""
  shapes = [
    *_stack("encoder, L layers", Box(155, 52, 200, 162)),
    *_stack("decoder, L layers", Box(395, 52, 220, 162)),
    _arrow(355, 69, 395, 139),
  ]
  for name, box in _BOXES.items():
    is_learned = touch.norms and "norm" in name
    shapes.append(_rectangle(box, _LEARNED if is_learned else _FROZEN))
    if name in _TITLES:
      shapes.append(
        _text(box.x + 10, box.y + box.height / 2 + 4, _TITLES[name])
      )
  shapes.append(_rectangle(_HEAD, _FROZEN))
  shapes.append(_text(_HEAD.x + 10, _HEAD.y + 15, "output head"))
  shapes += _learned(touch)
  shapes += _tokens(touch)
  label = "A frozen T5; what is learned is orange."
  return "\n".join(
    [
      f'<svg xmlns="http://www.w3.org/2000/svg" role="img" '
      f'aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
      f'font-family="sans-serif" font-size="12">',
      f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>',
      *shapes,
      "</svg>",
      "",
    ]
  )


def write(folder: pathlib.Path = FOLDER) -> None:
  """Write every picture."""
  folder.mkdir(exist_ok=True)
  for name, touch in PICTURES.items():
    (folder / f"{name}.svg").write_text(draw(touch), encoding="utf-8")


def _learned(touch: Touch) -> list[str]:
  shapes = []
  for name in touch.prefixes:
    box = _BOXES[name]
    at = Box(box.x + box.width - 62, box.y + 4, 54, box.height - 8)
    shapes += _learned_box(at, "P K, V")
  for name, letters in touch.marks:
    box = _BOXES[name]
    width = 8 + 6.4 * len(letters)
    at = Box(box.x + box.width - width - 6, box.y + 4, width, box.height - 8)
    shapes += _learned_box(at, letters)
  if touch.layers:
    for number in range(3):
      shapes += _learned_box(Box(139, 108 + 32 * number, 22, 16), "+")
  if touch.head:
    shapes += _learned_box(
      Box(_HEAD.x + 100, _HEAD.y + 3, 84, _HEAD.height - 6), touch.head
    )
  if touch.maker:
    shapes += _learned_box(Box(10, 120, 112, 26), touch.maker)
    to = (150, 240) if touch.before else (166, 120)
    shapes.append(
      _arrow(66 if touch.before else 122, 146 if touch.before else 133, *to)
    )
  return shapes


def _tokens(touch: Touch) -> list[str]:
  """Draw the texts' tokens, virtual ones in colour."""
  argument = ["own", "text", "own", "text"]
  text = ["text"] * (6 - 2 * touch.around) + argument * touch.around
  kinds = ["own"] * touch.before + text + ["own"] * touch.after
  shapes, step = [], _TOKEN + _GAP
  left = 255 - step * len(kinds) / 2
  for number, kind in enumerate(kinds):
    box = Box(left + step * number, 232, _TOKEN, _TOKEN)
    shapes.append(_rectangle(box, _LEARNED if kind == "own" else _FROZEN))
  what = "text, with virtual tokens" if "own" in kinds else "text"
  shapes.append(_text(255, 268, what, "middle"))
  left = 505 - step * touch.masks
  for number in range(2 * touch.masks):
    box = Box(left + step * number, 232, _TOKEN, _TOKEN)
    shapes.append(_rectangle(box, _FROZEN))
  shapes.append(_text(505, 268, "answer", "middle"))
  shapes.append(_arrow(255, 230, 255, 216))
  shapes.append(_arrow(505, 230, 505, 216))
  shapes.append(_arrow(505, 52, 505, 29))
  return shapes


def _stack(title: str, box: Box) -> list[str]:
  return [
    f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" '
    f'rx="6" fill="none" stroke="{_FRAME}"/>',
    _text(box.x, box.y - 6, title),
  ]


def _rectangle(box: Box, fill: str) -> str:
  return (
    f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" '
    f'height="{box.height:g}" rx="3" fill="{fill}" stroke="{_FRAME}"/>'
  )


def _learned_box(box: Box, text: str) -> list[str]:
  middle = box.x + box.width / 2
  return [
    _rectangle(box, _LEARNED),
    _text(middle, box.y + box.height / 2 + 4, text, "middle"),
  ]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
  return (
    f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{_INK}">'
    f"{escape(text)}</text>"
  )


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
  """Draw a line that ends in a dot, which needs no marker."""
  return (
    f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="{_INK}" fill="none"/>'
    f'<circle cx="{x1:g}" cy="{y1:g}" r="2.5" fill="{_INK}"/>'
  )


if __name__ == "__main__":
  write()
