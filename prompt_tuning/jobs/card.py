"""The card of an export: README.md in the format of hubs, with metadata.

A README.md that somebody else wrote is never replaced, nor is a card that
somebody changed: its last line has a digest of the text above.
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.core import embedded, files
from prompt_tuning.data.metrics.classification import is_statistic

FILE = "README.md"
NO_LICENCE = "unknown"  # as hubs call it where nobody has said
IN_TEMPLATE = (
  "the virtual tokens stand where the task's template says, but readers of "
  "NumPy files and adapters put them before the input text"
)
_LIBRARY = "library_name: prompt-tuning"
_LIMIT = 1 << 20
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Facts(NamedTuple):
  """The facts on a card.

  Attributes:
    title: title of the method.
    method: its settings.
    task: task of the training; None if it is not known.
    step: step at which it was saved.
    backbone: fingerprint of its backbone.
    base_model: name by which transformers loads the backbone.
    parameters: number of learned parameters.
    scores: those of the best evaluation: metric -> value.
    licence: licence of the learned parameters, in the hubs' abbreviation.
    soft_tokens: whether its task's template places the virtual tokens.
  """

  title: str
  method: Mapping[str, Any]
  task: str | None
  step: int | None
  backbone: str | None
  base_model: str | None
  parameters: int
  scores: Mapping[str, float]
  licence: str = NO_LICENCE
  soft_tokens: bool = False


def write(folder: pathlib.Path, facts: Facts) -> str:
  """Write the card.

  Args:
    folder: folder of the export.
    facts: the facts on the card.

  Returns:
    The reason why it was not written; empty if it was.
  """
  path = folder / FILE
  if not _is_ours(path):
    return (
      f"{FILE} exists and is not a card as an export wrote it; it stays as it "
      "is"
    )
  # Views of an earlier export may be there, too.
  views = [name for name in VIEWS if files.exists(folder / name)]
  files.write_text(path, text(facts, views))
  return ""


def text(facts: Facts, views: Sequence[str]) -> str:
  """Write a card's text: YAML between two lines, then Markdown.

  Args:
    facts: the facts on the card.
    views: names of files and folders beside it, from `VIEWS`.
  """
  lines = ["---", *_metadata(facts), "---", "", *_body(facts, views), "", ""]
  return _signed("\n".join(lines))


def _signed(body: str) -> str:
  return f"{body}<!-- as written: {files.sha256(body.encode())[:16]} -->\n"


def remove(folder: files.Path) -> None:
  """Remove the card of an export that was removed."""
  path = files.path(folder) / FILE
  if files.exists(path) and _is_ours(path):
    files.remove(path)


def _is_ours(path: files.Path) -> bool:
  """Say whether there is no card, or one that nobody changed."""
  try:
    card = files.read_bytes(path, _LIMIT).decode()
  except FileNotFoundError:
    return True
  except (OSError, ValueError):
    return False
  body, mark, _ = card.rpartition("<!--")
  return bool(mark) and card == _signed(body)


def _metadata(facts: Facts) -> list[str]:
  """Write YAML; a text is quoted as JSON, which YAML reads."""
  lines = [_LIBRARY, f"license: {json.dumps(facts.licence)}"]
  lines.append("pipeline_tag: text2text-generation")
  if _is_on_a_hub(facts.base_model):
    lines.append(f"base_model: {json.dumps(facts.base_model)}")
  tags = ["prompt-tuning", "t5", facts.title.lower().replace(" ", "-")]
  lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in dict.fromkeys(tags))]
  metrics, _ = _sorted(facts.scores)
  if facts.task and metrics:
    lines += [
      "model-index:",
      f"- name: {json.dumps(facts.title)}",
      "  results:",
      "  - task:",
      "      type: text2text-generation",
      "    dataset:",
      f"      name: {json.dumps(facts.task)}",
      f"      type: {json.dumps(facts.task)}",
      "    metrics:",
    ]
    for name, value in metrics.items():
      lines.append(f"    - type: {json.dumps(name)}")
      lines.append(f"      value: {value:.6g}")
  return lines


def _sorted(
  scores: Mapping[str, float],
) -> tuple[dict[str, float], dict[str, float]]:
  """Tell metrics of the task from statistics of labels, each by name."""
  by_name = dict(sorted(scores.items()))
  statistics = {n: v for n, v in by_name.items() if is_statistic(n)}
  metrics = {n: v for n, v in by_name.items() if n not in statistics}
  return metrics, statistics


def _is_on_a_hub(name: str | None) -> bool:
  """Tell a hub's name from a path; paths of this machine stay private."""
  return (
    name is not None
    and _HUB_NAME.fullmatch(name) is not None
    and not files.exists(files.path(name))
  )


def _base_model(facts: Facts) -> str | None:
  if _is_on_a_hub(facts.base_model):
    return facts.base_model
  name = embedded.with_fingerprint(facts.backbone)
  return None if name is None else f"{name}, in the package prompt-tuning"


def _body(facts: Facts, views: Sequence[str]) -> list[str]:
  named = {
    "method": facts.title,
    "task": facts.task,
    "step": facts.step,
    "base model": _base_model(facts),
    "fingerprint of the base model": facts.backbone,
    "trained parameters": f"{facts.parameters:,}",
    "licence": facts.licence,
  }
  rows = [f"| {k} | {v} |" for k, v in named.items() if v is not None]
  lines = [
    f"# {facts.title}, trained for a frozen T5",
    "",
    "| what | |",
    "|---|---|",
    *rows,
  ]
  metrics, statistics = _sorted(facts.scores)
  for title, values in (
    ("score of the best evaluation", metrics),
    ("labels there, in percent", statistics),
  ):
    if values:
      rows = [f"| {k} | {v:.4g} |" for k, v in values.items()]
      lines += ["", f"| {title} | |", "|---|---:|", *rows]
  settings = json.dumps(facts.method, indent=2, sort_keys=True)
  lines += ["", "## Use it", "", *_use(facts), ""]
  lines += ["## What is in this folder", ""]
  for name in views:
    misplaced = facts.soft_tokens and name in _BEFORE_TEXT
    note = f"; note: {IN_TEMPLATE}" if misplaced else ""
    lines.append(f"- `{name}`: {VIEWS[name]}{note}")
  if facts.method:
    lines += ["", "## Settings", "", "```json", settings, "```"]
  return lines


def _use(facts: Facts) -> list[str]:
  """Show how to use the export, on texts or on a task's rows."""
  asked = 'print(model.predict(["..."], "it"))'
  note: list[str] = []
  if facts.soft_tokens:
    task = json.dumps(facts.task or "TASK")
    asked = f'print(model.evaluate({task}, prompt="it", by="rank"))'
    note = [
      "",
      f"Note: {IN_TEMPLATE}, and so does `model.predict`. Declare the task "
      "with its template, then score its rows.",
    ]
  return [
    "Use it with the model that it was trained with; any other model is an "
    "error.",
    *note,
    "",
    "```python",
    "import prompt_tuning as pt",
    embedded.loading(facts.backbone),
    'model = model.with_tuned({"it": "THIS FOLDER, or hf://user/name"})',
    asked,
    "```",
  ]


VIEWS = {
  "delta": "what was learned, for prompt-tuning (safetensors and JSON)",
  "prompt.npy": "the vectors, as T5X loads them",
  "prompt_decoder.npy": "the vectors of the decoder",
  "peft": "an adapter for PEFT",
}
_BEFORE_TEXT = ("prompt.npy", "peft")  # where their readers put vectors
