"""Describe the content of checkpoints, prompts and results of tuning."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import (
  bundle,
  hf,
  json_files,
  peft,
  restore,
  sizes,
  vocabulary_mark,
)
from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.checkpoints.errors import CheckpointError, parsing
from prompt_tuning.checkpoints.source import Checkpoint, Leaf
from prompt_tuning.checkpoints.vocabulary_mark import VocabularyMark
from prompt_tuning.core import embedded, files, text
from prompt_tuning.jobs import best, contents, hub, run_schema

Report = dict[str, Any]


def report(path: str) -> Report:
  """Describe the content of a path, in JSON's types.

  It does not read the arrays of a model.

  Args:
    path: of a checkpoint, a prompt, an adapter, a bundle, an export, or
      MODEL_DIR of a training; or `hf://user/name`, see `hub.local`.

  Returns:
    `path`, `kind` (see `contents`), `format`, `notes`, and of all but prompts
    and trainings: `step`, `about` (facts by name), `params` and `state`
    (name -> shape and dtype), totals of both; of models `size` (a published
    name or None) and `config` (None where the parameters are not a T5's); of
    prompts `length`, `width`, `dtype`, `mean_norm`; of trainings `about`,
    `runs`, `steps` (of its bundles) and `exports`.

  Raises:
    CheckpointError: nothing that can be read.
    ValueError: see `hub.local`.
  """
  return {**_report(os.fspath(hub.local(path))), "path": path}


def _report(path: str) -> Report:
  kind = contents.kind_of(path)
  if kind == contents.MODEL:
    return _checkpoint(restore.open_checkpoint(path))
  if kind == contents.PROMPT:
    return _prompt(path)
  describe = {
    contents.ADAPTER: _adapter,
    contents.BUNDLE: _bundle,
    contents.EXPORT: _export,
    contents.RUN: _run,
  }
  with parsing(path, f"one that says what it is: {kind}"):
    return describe[kind](path)


def lines(described: Report) -> list[str]:
  """Format a report for people."""
  kinds = {contents.PROMPT: _prompt_lines, contents.RUN: _run_lines}
  spell = kinds.get(described["kind"], _array_lines)
  notes = (f"note: {note}" for note in described["notes"])
  return [text.printable(line) for line in (*spell(described), *notes)]


def _checkpoint(checkpoint: Checkpoint) -> Report:
  notes = list(checkpoint.notes)
  size, config = None, None
  try:
    inferred = sizes.infer_config(checkpoint)
    size, config = sizes.size_name(inferred), sizes.described(inferred)
  except CheckpointError as error:
    notes.append(f"not the parameters of a T5: {error}")
  state: Mapping[str, Leaf] = {}
  try:
    state = checkpoint.open_state()
  except CheckpointError as error:
    notes.append(f"the optimizer state cannot be read: {error}")
  return {
    "path": checkpoint.path,
    "kind": contents.MODEL,
    "format": checkpoint.format,
    "step": checkpoint.step,
    "size": size,
    "config": config,
    "about": {},
    **_arrays(checkpoint.params, state),
    "notes": notes,
  }


def _arrays(
  params: Mapping[str, Leaf], state: Mapping[str, Leaf]
) -> dict[str, Any]:
  return {
    "params": _listed(params),
    "totals": _totals(params),
    "state": _listed(state),
    "state_totals": _totals(state),
  }


def _listed(leaves: Mapping[str, Leaf]) -> dict[str, Any]:
  return {
    path: {"shape": list(leaf.shape), "dtype": leaf.dtype.name}
    for path, leaf in leaves.items()
  }


def _totals(leaves: Mapping[str, Leaf]) -> dict[str, int]:
  return {
    "arrays": len(leaves),
    "values": sum(leaf.size for leaf in leaves.values()),
    "bytes": sum(leaf.nbytes for leaf in leaves.values()),
  }


def _prompt(path: str) -> Report:
  prompt = restore.open_prompt(path)
  norms = np.linalg.norm(prompt.values, axis=1)
  return {
    "path": path,
    "kind": contents.PROMPT,
    "format": prompt.format,
    "length": prompt.values.shape[0],
    "width": prompt.values.shape[1],
    "dtype": prompt.values.dtype.name,
    "mean_norm": float(norms.mean()),
    "notes": list(prompt.notes),
  }


def _adapter(path: str) -> Report:
  adapter = peft.read_adapter(path)
  facts = {
    "method": adapter.config["peft_type"],
    "base model": adapter.config.get("base_model_name_or_path"),
  }
  file = files.path(path) / peft.WEIGHTS
  return {
    "path": path,
    "kind": contents.ADAPTER,
    "format": "peft, an adapter",
    "step": None,
    "about": _said(facts),
    **_arrays(hf.file_tensors(str(file)), {}),
    "notes": [],
  }


def _bundle(path: str) -> Report:
  saved = bundle.read(path)
  manifest = saved.manifest
  _refuse(path, manifest)
  number = manifest.get("run_index")
  runs = manifest["run"]["runs"]
  facts = _training_facts(manifest)
  if number is None:
    facts["runs"] = ", ".join(filter(None, (run["name"] for run in runs)))
  else:
    facts["run"] = runs[number]["name"]
    facts["best score"] = manifest.get("best", {}).get("score")
  return {
    "path": path,
    "kind": contents.BUNDLE,
    "format": "a bundle",
    "step": _step(manifest),
    "about": _said(facts),
    **_arrays(*map(contents.of_arrays, (saved.trainable, saved.resume))),
    "notes": [],
  }


def _refuse(path: str, manifest: Mapping[str, Any]) -> None:
  """Refuse runs that the other commands could not load."""
  json_files.refuse(
    files.path(path) / bundle.MANIFEST, run_schema.faults(manifest)
  )


def _training_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
  """Say what was trained, with which model, on which tasks."""
  described, number = manifest["run"], manifest.get("run_index")
  tuners, runs = described["tuners"], described["runs"]
  if number is not None:
    tuners, runs = tuners[number : number + 1], [runs[number]]
  methods = dict.fromkeys(t["class"].rpartition(":")[2] for t in tuners)
  tasks = dict.fromkeys(str(run.get("task")) for run in runs)
  return {
    "method": ", ".join(methods) or "the model's own weights",
    "task": ", ".join(tasks),
    "backbone": described["backbone"]["fingerprint"],
    **_vocabulary(manifest),
  }


def _vocabulary(manifest: Mapping[str, Any]) -> dict[str, str]:
  """Say with which vocabulary something was trained, if that is known."""
  described = manifest.get(vocabulary_mark.KEY)
  if described is None:
    return {}
  return {"vocabulary": str(VocabularyMark.of_manifest(described))}


def _step(manifest: Mapping[str, Any]) -> int:
  """Return the step of a bundle as T5X counts."""
  step: int = manifest["step"] + manifest["run"]["start_step"]
  return step


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
  """Leave out unknown values."""
  return {k: v for k, v in facts.items() if v is not None and v != ""}


def _export(path: str) -> Report:
  root = files.path(embedded.prompt(path))
  inside = root / deltas.FOLDER
  folder = inside if inside.is_dir() else root
  saved = deltas.read_arrays(folder)
  about = saved.about
  views = sorted(p.name for p in inside.parent.iterdir() if p != inside)
  tokens = {
    name.replace("_", " "): len(rows)
    for name, rows in vars(saved.placement).items()
    if rows
  }
  facts = {
    "method": about.get("title"),
    "task": about.get("task"),
    "backbone": about.get("backbone"),
    **_vocabulary(about),
    "virtual tokens": ", ".join(f"{n} ({k})" for k, n in tokens.items()),
    "beside it": ", ".join(views) if folder == inside else None,
    **deltas.card_facts(about),
  }
  leaves = contents.of_arrays({n: a[0] for n, a in saved.arrays.items()})
  return {
    "path": path,
    "kind": contents.EXPORT,
    "format": "an export",
    "step": about.get("step"),
    "about": _said(facts),
    **_arrays(leaves, {}),
    "notes": [],
  }


def _run(path: str) -> Report:
  """Describe a training; its bundles have the arrays."""
  folder = files.path(path)
  manifests = map(bundle.latest_manifest, best.run_folders(folder).values())
  bests = [manifest for manifest in manifests if manifest is not None]
  latest = bundle.latest_manifest(folder / bundle.BUNDLES)
  known = [*([] if latest is None else [latest]), *bests]
  if not known:
    raise ValueError("no bundle that has a readable manifest")
  for manifest in known:
    _refuse(path, manifest)
  start = known[0]["run"]["start_step"]
  # The record decides which step is the best, not the step's number.
  records = {m["run_index"]: m.get("best") for m in bests}
  if latest is not None:
    records = dict(enumerate(latest.get("progress", {}).get("best", [])))
  runs = [
    {
      "name": run["name"],
      "task": run.get("task"),
      "seed": run.get("seed"),
      "best_step": record["step"] + start if record else None,
      "score": record["score"] if record else None,
    }
    for number, run in enumerate(known[0]["run"]["runs"])
    for record in [records.get(number)]
  ]
  return {
    "path": path,
    "kind": contents.RUN,
    "format": "a training",
    "about": _training_facts(
      {name: known[0].get(name) for name in ("run", vocabulary_mark.KEY)}
    ),
    "runs": runs,
    "steps": [start + s for s in bundle.steps(folder / bundle.BUNDLES)],
    "exports": _exports(folder),
    "notes": [],
  }


def _exports(run: pathlib.Path) -> list[str]:
  """List the folders with what a training exported, one for each run."""
  root = run / "exports"
  return [
    str(folder.relative_to(run))
    for folder in (root, *sorted(root.glob("*/")))
    if deltas.is_delta(folder / deltas.FOLDER) or restore.npy_files(str(folder))
  ]


def _array_lines(described: Report) -> list[str]:
  number = described["step"]
  step = "no step" if number is None else f"step {number}"
  spelled = [f"{described['path']}: {described['format']}, {step}"]
  if described.get("config") is not None:
    fields = ", ".join(f"{k}={v}" for k, v in described["config"].items())
    size = described["size"] or "no published one"
    spelled.append(f"size: {size} ({fields})")
  spelled += [f"{name}: {fact}" for name, fact in described["about"].items()]
  width = max(map(len, described["params"]), default=0)
  spelled += [
    f"  {path:<{width}}  {leaf['dtype']}{leaf['shape']}"
    for path, leaf in described["params"].items()
  ]
  spelled.append(f"parameters: {_total_line(described['totals'])}")
  if described["kind"] in (contents.MODEL, contents.BUNDLE):
    total = _total_line(described["state_totals"])
    spelled.append(f"optimizer state: {total}")
  return spelled


def _total_line(totals: Mapping[str, int]) -> str:
  return (
    f"{totals['values']:,} values in {totals['arrays']:,} arrays, "
    f"{totals['bytes'] / 2**20:,.1f} MiB"
  )


def _prompt_lines(described: Report) -> list[str]:
  shape = [described["length"], described["width"]]
  norm = described["mean_norm"]
  return [
    f"{described['path']}: {described['format']}, a prompt",
    f"  {described['dtype']}{shape}, mean norm {norm:.4g}",
  ]


def _run_lines(described: Report) -> list[str]:
  rows = [
    (
      run["name"] or "the run",
      "-" if run["best_step"] is None else str(run["best_step"]),
      "-" if run["score"] is None else f"{run['score']:.4g}",
    )
    for run in described["runs"]
  ]
  names = max(3, *(len(name) for name, _, _ in rows))
  steps = ", ".join(map(str, described["steps"])) or "none"
  return [
    f"{described['path']}: {described['format']}",
    *(f"{name}: {fact}" for name, fact in described["about"].items()),
    f"  {'run':<{names}}  best step    score",
    *(
      f"  {name:<{names}}  {step:>9}  {score:>7}" for name, step, score in rows
    ),
    f"bundles: steps {steps}",
    f"exports: {', '.join(described['exports']) or 'none'}",
  ]
