"""Load what was tuned: a run's folder, a bundle, or a prompt in a file."""

import dataclasses
import logging
import os
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints import (
  bundle,
  fingerprint,
  json_files,
  peft,
  restore,
  vocabulary_mark,
)
from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.checkpoints.bundle import Bundle
from prompt_tuning.checkpoints.delta import SavedDelta
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  Mismatch,
  unreadable,
)
from prompt_tuning.checkpoints.vocabulary_mark import VocabularyMark
from prompt_tuning.core import (
  algebra,
  embedded,
  files,
  finite,
  schema,
  tree,
)
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.schema import Fault
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.core.types import Params
from prompt_tuning.data import templated
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import best, hub, run_schema, same_vocabulary, slots
from prompt_tuning.jobs.identity import rebuild
from prompt_tuning.models.t5 import quantized, site_shapes
from prompt_tuning.train import loop
from prompt_tuning.tuners import bank, discovery
from prompt_tuning.tuners.method import Method, name_of

logger = logging.getLogger(__name__)

# How paths of the backbone's own parameters begin, and of a method's.
_MODEL, _TUNER = "model/", "tuner/"
_TRAINED = (
  "what was trained: the MODEL_DIR of a run, a bundle, an export, a NumPy "
  "prompt, a PEFT adapter, or a T5X checkpoint with a prompt"
)
_ONE_MODEL = (
  "Tuned models cannot be used side by side; only prompts can. Give the path "
  f"of the bundle of one of them, {loop.BEST}/run_<number>/step_<step>."
)


class Tuned(NamedTuple):
  """One or more runs, ready to be used.

  Attributes:
    runs: their deltas and placements.
    names: names of the runs; empty for a single run.
    fingerprint: fingerprint of their backbone; None if it is not recorded.
    steps: steps at which they were saved; None if these are not recorded.
    weights: for a single run that tuned the backbone itself: path -> array.
    methods: methods of the runs, with None for unknown ones.
    tasks: tasks of the runs, with None for unrecorded ones.
    base_model: name by which transformers loads the backbone, if recorded.
    keys: the user's names for them, with None for runs without one.
    vocabulary: the vocabulary of training; None if it is not recorded.
    scores: metrics of the runs' best evaluations; empty if not recorded.
    licence: licence of an export; None if it is not recorded.
  """

  runs: Runs
  names: tuple[str, ...]
  fingerprint: str | None = None
  steps: tuple[int | None, ...] = (None,)
  weights: Mapping[str, np.ndarray] = types.MappingProxyType({})
  methods: tuple[Method | None, ...] = (None,)
  tasks: tuple[str | None, ...] = (None,)
  base_model: str | None = None
  keys: tuple[str | None, ...] = (None,)
  vocabulary: VocabularyMark | None = None
  scores: tuple[Mapping[str, float], ...] = (types.MappingProxyType({}),)
  licence: str | None = None

  @property
  def step(self) -> int | None:
    """The step of all runs; None if their steps differ."""
    return self.steps[0] if len(set(self.steps)) == 1 else None


PLAIN = Tuned(Runs(), ("",))  # the model alone


def load(
  path: str | os.PathLike[str], model: ModelShape | None = None
) -> Tuned:
  """Load runs.

  Args:
    path: MODEL_DIR of a run (the best of each run; the last where nothing was
      evaluated), a bundle, an export, a `.npy` prompt, a PEFT adapter, a T5X
      checkpoint with a prompt, `embedded:prompts/` and the name of a prompt
      that ships with the package, or `hf://user/name`, see `hub.local`.
    model: shape of the backbone, which some adapters need.

  Returns:
    The runs.

  Raises:
    CheckpointError: nothing that was tuned, or damaged.
    ValueError: several tuned models, an unknown method, or an adapter that says
      what cannot be said here.
  """
  path = hub.local(path)
  folder = files.path(embedded.prompt(path))
  if _is_there(folder / bundle.MANIFEST):
    return from_bundle(bundle.read(folder), folder)
  saved = best.read(folder)
  if saved:
    banks = [from_bundle(one.bundle, one.path) for one in saved]
    names = tuple(name for part in banks for name in part.names)
    return _side_by_side(banks)._replace(names=names)
  for candidate in (folder, folder / deltas.FOLDER):
    if _is_there(candidate / deltas.MANIFEST):
      return _from_delta(deltas.read(candidate))
  if (folder / peft.CONFIG).is_file():
    method, delta = peft.read(folder, model)
    names = method.conditions or ("",)
    count = len(names)
    runs = Runs(delta, (method.placement,) * count)
    nothing = (None,) * count
    return Tuned(
      runs,
      names,
      steps=nothing,
      methods=(method,) * count,
      tasks=nothing,
      keys=nothing,
      scores=({},) * count,
    )
  return _from_vectors(path)


def _is_there(file: pathlib.Path) -> bool:
  """Say whether there is a file, or a broken link."""
  return file.exists() or file.is_symlink()


def parameters(
  path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], Method | None]:
  """Read the parameters of one run's tuning method, and the method.

  Args:
    path: MODEL_DIR of one run (its best; the last where nothing was
      evaluated), or a bundle.

  Returns:
    Path within the method -> array, with a leading run axis of size 1; and the
    method, None where nobody here knows it.

  Raises:
    CheckpointError: no training, or damaged.
    ValueError: several runs, or one that tuned the model itself.
  """
  folder = files.path(embedded.prompt(path))
  if _is_there(folder / bundle.MANIFEST):
    bundles = [bundle.read(folder)]
  else:
    bundles = [one.bundle for one in best.read(folder)]
  if not bundles:
    raise unreadable(folder, bundle.MANIFEST, "no training's folder")
  arrays = [one.parameters for one in bundles]
  of_method = {
    name.removeprefix(_TUNER): array
    for name, array in arrays[0].items()
    if name.startswith(_TUNER)
  }
  counts = {array.shape[0] for array in of_method.values()}
  if len(arrays) > 1 or counts != {1}:
    raise ValueError(
      f"{path} holds {max(counts, default=0) * len(arrays)} runs of tuning "
      "methods; give the path of the bundle of one: "
      f"{loop.BEST}/run_<number>/step_<step>."
    )
  tuned = from_bundle(bundles[0], path)
  (method, *_) = tuned.methods
  return of_method, method


def all_parameters(folder: str) -> dict[str, np.ndarray]:
  """Read the last parameters of the methods of all runs of a training.

  Args:
    folder: of the training.

  Returns:
    Path within the method -> array, with a leading run axis.

  Raises:
    CheckpointError: no training, or damaged.
  """
  latest = bundle.read_latest(files.path(folder) / loop.BUNDLES)
  if latest is None:
    raise unreadable(folder, bundle.MANIFEST, "no training's folder")
  return {
    path.removeprefix(_TUNER): array
    for path, array in latest[1].parameters.items()
    if path.startswith(_TUNER)
  }


def _from_delta(saved: SavedDelta) -> Tuned:
  """Read an export; the module of its method is not needed."""
  about = saved.about
  method = None
  if "method" in about:
    try:
      method = rebuild(about["method"])
    except ValueError as error:
      logger.info(
        "Using the saved delta as it is, without its method. %s", error
      )
  delta = jax.tree.map(jnp.asarray, saved.delta)
  weighed = tuple(map(tuple, method.weighed_words)) if method else ()
  return Tuned(
    Runs(
      *(delta, (saved.placement,), (tuple(about.get("answers", ())),)),
      (weighed,),
      (bool(about.get("soft_tokens")),),
    ),
    ("",),
    about.get("backbone"),
    (about.get("step"),),
    methods=(method,),
    tasks=(about.get("task"),),
    base_model=about.get("base_model"),
    vocabulary=_vocabulary(about.get(vocabulary_mark.KEY)),
    scores=(about.get("scores", {}),),
    licence=about.get("licence"),
  )


def _from_vectors(path: str | os.PathLike[str]) -> Tuned:
  """Read vectors that stand before the text."""
  try:
    loaded = restore.open_prompt(path)
  except CheckpointError as error:
    if not _is_empty(os.fspath(path)):
      raise
    found = error.mismatches[-1].found
    raise unreadable(files.path(path), _TRAINED, found) from error
  for note in loaded.notes:
    logger.info("%s: %s", path, note)
  values = jnp.asarray(loaded.values)
  placement = Placement(encoder_prefix=tuple(range(len(values))))
  runs = Runs(Delta(virtual=values[None]), (placement,))
  return Tuned(runs, ("",), methods=(discovery.of_vectors(*values.shape),))


def _is_empty(path: str) -> bool:
  """Say whether a path has no content, so that it has no format."""
  if path.endswith(".npy") or ("://" in path and not files.is_url(path)):
    return False
  return not files.exists(path) or (
    files.is_dir(path) and not files.names(path)
  )


def load_one(
  path: str | os.PathLike[str], model: ModelShape | None = None
) -> Tuned:
  """Load what was tuned, and insist that it is a single run, see `load`.

  Raises:
    ValueError: it is several, or a tuned model.
  """
  tuned = load(path, model)
  if tuned.weights:
    raise ValueError(
      f"{path} holds the weights of a tuned model; expected a delta."
    )
  if len(tuned.runs) > 1:
    raise ValueError(
      f"{path} holds {len(tuned.runs)} runs ({', '.join(tuned.names)}); give "
      "the path of the bundle of one of them: "
      f"{loop.BEST}/run_<number>/step_<step>."
    )
  return tuned


def from_bundle(saved: Bundle, path: str | os.PathLike[str]) -> Tuned:
  """Rebuild the runs of a bundle.

  Args:
    saved: of one run, or of all runs that trained side by side.
    path: where it is, for messages.

  Returns:
    The runs.

  Raises:
    CheckpointError: a manifest or arrays that are not those of runs.
    ValueError: several tuned models, an unknown method, or parameters that are
      not its.
  """
  json_files.refuse(os.path.join(path, bundle.MANIFEST), _faults(saved))
  described = saved.manifest["run"]
  number = saved.manifest.get("run_index")
  numbers = range(len(described["runs"])) if number is None else (number,)
  weights = {
    name.removeprefix(_MODEL): array
    for name, array in saved.trainable.items()
    if name.startswith(_MODEL)
  }
  if weights and len(numbers) > 1:
    raise ValueError(_ONE_MODEL)
  runs, methods = Runs(), []
  if described["tuners"]:
    methods = [_rebuilt(described["tuners"], k, path) for k in numbers]
  slots_of_runs = slots.of_methods(methods, len(numbers))
  if methods:
    params = tree.unflatten(
      {
        name: jnp.asarray(array)
        for name, array in saved.parameters.items()
        if not name.startswith(_MODEL)
      }
    )
    delta = _delta(methods, params.get("tuner", {}), path)
    json_files.refuse(path, algebra.faults(delta, len(slots_of_runs)))
    runs = slots.runs(delta, methods, slots_of_runs)
  settings = [described["runs"][numbers[slot.run]] for slot in slots_of_runs]
  tasks = tuple(
    slot.condition or run.get("task")
    for slot, run in zip(slots_of_runs, settings, strict=True)
  )
  return Tuned(
    dataclasses.replace(runs, in_template=_in_template(described, tasks)),
    tuple(
      slot.name(run["name"])
      for slot, run in zip(slots_of_runs, settings, strict=True)
    ),
    described["backbone"]["fingerprint"],
    (saved.manifest["step"] + described["start_step"],) * len(slots_of_runs),
    {name: array[0] for name, array in weights.items()},
    tuple(methods[slot.run] if methods else None for slot in slots_of_runs),
    tasks,
    saved.manifest.get("base_model"),
    vocabulary=_vocabulary_of(saved.manifest),
    scores=(_scores(saved.manifest),) * len(slots_of_runs),
  )


def _in_template(
  described: Mapping[str, Any], asked: Sequence[str | None]
) -> tuple[bool, ...]:
  """Say for each task whether its template places the virtual tokens."""
  tasks = described.get("tasks")
  if not isinstance(tasks, Mapping):  # older versions did not say
    return (False,) * len(asked)
  contents = {
    name: task["content"]
    for name, task in tasks.items()
    if isinstance(task, Mapping) and isinstance(task.get("content"), Mapping)
  }
  placed = [n for n, c in contents.items() if templated.places_tokens(c)]
  # The mixture is not among them, but its members are.
  return tuple(
    name in placed or (bool(placed) and name not in tasks) for name in asked
  )


def _scores(manifest: Mapping[str, Any]) -> Mapping[str, float]:
  """Take the metrics of the evaluation for which a bundle was kept."""
  metrics: Mapping[str, float] = (manifest.get("best") or {}).get("metrics", {})
  return metrics


def _vocabulary_of(manifest: Mapping[str, Any]) -> VocabularyMark | None:
  """Say with which vocabulary runs were trained."""
  if (described := manifest.get(vocabulary_mark.KEY)) is not None:
    return _vocabulary(described)
  known = manifest["run"].get("vocabulary")  # all that older versions say
  return VocabularyMark(known) if isinstance(known, str) else None


def _vocabulary(described: Mapping[str, Any] | None) -> VocabularyMark | None:
  return VocabularyMark.of_manifest(described) if described else None


def _faults(saved: Bundle) -> list[Fault]:
  """List the faults of a bundle before a method reads it."""
  faults = run_schema.faults(saved.manifest)
  if faults:
    return faults
  runs = saved.manifest["run"]["runs"]
  if "run_index" in saved.manifest:
    runs = runs[:1]
  for name, array in saved.parameters.items():
    if array.shape[:1] != (len(runs),):
      expected = f"arrays of {len(runs)} runs"
      faults.append(Fault(name, expected, f"{array.dtype}{[*array.shape]}"))
    elif bad := finite.fault(array):
      faults.append(Fault(name, finite.EXPECTED, f"{bad}: its run diverged"))
  return faults


def _rebuilt(
  described: Sequence[Mapping[str, Any]],
  number: int,
  path: str | os.PathLike[str],
) -> Method:
  """Build one of the methods that a bundle describes."""
  settings = described[number]
  try:
    return rebuild(settings)
  except ValueError as error:
    place = f"{bundle.MANIFEST}: run.tuners[{number}]"
    expected = "the settings of a tuning method"
    mismatch = Mismatch(place, expected, schema.shown(settings))
    raise CheckpointError(path, [mismatch], str(error)) from error


def _delta(
  methods: Sequence[Method], params: Params, path: str | os.PathLike[str]
) -> Delta:
  """Let the methods of a bundle compute their deltas."""
  try:
    return bank.apply_runs(methods, params)
  except Exception as error:  # the method may be anybody's
    names = dict.fromkeys(name_of(type(method)) for method in methods)
    arrays = ", ".join(
      f"{name} {[*array.shape]}" for name, array in tree.flatten(params).items()
    )
    mismatch = Mismatch(
      "its arrays", f"the parameters of {' and '.join(names)}", arrays[:400]
    )
    hint = f"It was written by another version, or damaged. {error}"
    raise CheckpointError(path, [mismatch], hint) from error


def _side_by_side(banks: Sequence[Tuned]) -> Tuned:
  """Put the runs of several parts side by side; a tuned model must be alone."""
  if len(banks) == 1:
    return banks[0]
  if any(part.weights for part in banks):
    raise ValueError(_ONE_MODEL)
  return Tuned(
    join([part.runs for part in banks]),
    (),
    banks[0].fingerprint,
    tuple(step for part in banks for step in part.steps),
    methods=tuple(m for part in banks for m in part.methods),
    tasks=tuple(task for part in banks for task in part.tasks),
    base_model=banks[0].base_model,
    vocabulary=banks[0].vocabulary,
    scores=tuple(metrics for part in banks for metrics in part.scores),
  )


def applied(tuned: Tuned, model: Backbone) -> Backbone:
  """Replace the backbone's weights by those of a tuned model.

  Args:
    tuned: prompts, or a tuned model.
    model: the backbone that it was tuned from.

  Returns:
    The model, in the backbone's dtypes, where the backbone is; the very same
    one for prompts.

  Raises:
    ValueError: weights that the backbone has not.
  """
  if not tuned.weights:
    return model
  flat = dict(tree.flatten(model.params))
  for path, array in tuned.weights.items():
    old = flat.get(path)
    if old is None or old.shape != array.shape:
      raise ValueError(
        f"The tuned model has {path} {list(array.shape)}, but the backbone "
        f"has {list(old.shape) if old is not None else 'nothing'} there. Set "
        "SCAN_LAYERS as in its training."
      )
    flat |= quantized.requantize(flat, path, array)
  params = tree.unflatten(flat)
  return model._replace(
    params=params, fingerprint=fingerprint.fingerprint(params)
  )


def insist(
  tuned: Tuned, model: Backbone, path: str, vocabulary: Vocabulary | None
) -> Tuned:
  """Insist that runs belong to a model and its vocabulary.

  Args:
    tuned: the runs.
    model: the backbone they shall be used with.
    path: where they come from.
    vocabulary: of the texts they shall answer; None where there are none.

  Returns:
    The same runs.

  Raises:
    ValueError: they were tuned with another backbone or vocabulary, or have
      another width.
  """
  try:
    site_shapes.check(tuned.runs.delta, model.config)
  except ValueError as error:
    raise ValueError(
      f"{path} does not fit the model. Use the model that it was trained "
      f"with. {error}"
    ) from error
  if tuned.fingerprint is not None:
    _insist_on_backbone(tuned.fingerprint, model.fingerprint, path)
  if vocabulary is not None:
    same_vocabulary.insist(tuned.vocabulary, vocabulary, path)
  return tuned


def _insist_on_backbone(trained_with: str, given: str, path: str) -> None:
  if trained_with != given:
    raise ValueError(
      f"{path} was tuned with the backbone {trained_with}, but the checkpoint "
      f"is {given}, with other weights. Use the checkpoint that it was "
      "trained with."
    )


def load_several(
  paths: str | Sequence[str | None] | Mapping[str, str | None] | None,
  model: Backbone,
  vocabulary: Vocabulary | None,
) -> Tuned:
  """Load any number of runs of any methods side by side.

  Args:
    paths: one, several, or name -> path; None, also as one of several, is the
      model alone. Of a training on several tasks, one of which is the name,
      these are the runs of that task.
    model: the backbone they shall be used with.
    vocabulary: see `insist`.

  Returns:
    All of their runs; names tell them apart.

  Raises:
    ValueError: see `insist`.
    CheckpointError: see `load`.
  """
  if paths is None:
    return PLAIN
  is_named = isinstance(paths, Mapping)
  if isinstance(paths, str):
    paths = {"": paths}
  elif not isinstance(paths, Mapping):
    paths = {str(number): path for number, path in enumerate(paths)}
  for name in filter(None, paths):
    files.check_name(name, "A key of PROMPT_FILE")
  banks = {
    name: PLAIN
    if path is None
    else insist(load(path, model.config.shape), model, path, vocabulary)
    for name, path in paths.items()
  }
  if is_named:
    banks = {name: _of_task(part, name) for name, part in banks.items()}
  names, keys = [], []
  for name, part in banks.items():
    for run_name in part.names:
      alone = is_named and len(part.names) == 1
      names.append(name if alone else "_".join(filter(None, (name, run_name))))
      keys.append(name if is_named else None)
  for name in filter(None, names):
    files.check_name(name, "The name of a run of PROMPT_FILE")
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice or (names[1:] and "" in names):
    raise ValueError(
      "PROMPT_FILE gives several runs the same name, "
      f"{', '.join(twice) or repr('')}. Change its keys."
    )
  return _side_by_side(list(banks.values()))._replace(
    names=tuple(names), fingerprint=model.fingerprint, keys=tuple(keys)
  )


def _of_task(tuned: Tuned, name: str) -> Tuned:
  """Take the runs of a task out of a bank of several tasks; else all runs."""
  if len(set(tuned.tasks)) == 1 or name not in tuned.tasks:
    return tuned
  chosen = [k for k, task in enumerate(tuned.tasks) if task == name]
  return tuned._replace(
    runs=join([tuned.runs.one(k) for k in chosen]),
    names=tuple(tuned.names[k] for k in chosen),
    steps=tuple(tuned.steps[k] for k in chosen),
    methods=tuple(tuned.methods[k] for k in chosen),
    tasks=tuple(tuned.tasks[k] for k in chosen),
    scores=tuple(tuned.scores[k] for k in chosen),
  )


def encoder_vectors(
  path: str,
  vocabulary: Vocabulary | None = None,
  backbone: Callable[[], str] | None = None,
) -> np.ndarray:
  """Read the virtual tokens of one run, as initial values for others.

  Args:
    path: see `load`; of the runs of one task, which were scored, the best.
    vocabulary: that they shall have been trained with; None for any.
    backbone: gives the fingerprint of the model that they shall have been
      trained with, where the file says which that was; None for any.

  Returns:
    [P, H] float32.

  Raises:
    ValueError: several runs, or none with virtual tokens in the encoder only;
      another vocabulary or model.
  """
  tuned = _best_of_a_task(path) or load_one(path)
  if vocabulary is not None:
    same_vocabulary.insist(tuned.vocabulary, vocabulary, path)
  if backbone is not None and tuned.fingerprint is not None:
    _insist_on_backbone(tuned.fingerprint, backbone(), path)
  stacks = vectors(tuned.runs, 0)
  if list(stacks) != ["encoder"]:
    raise ValueError(
      f"PROMPT_FILE {path} has virtual tokens in "
      f"{' and '.join(sorted(stacks)) or 'no place'}; expected them in the "
      "encoder only."
    )
  return stacks["encoder"]


def _best_of_a_task(path: str) -> Tuned | None:
  """Load the best of several runs, where their scores can be compared."""
  folder = files.path(embedded.prompt(path))
  if _is_there(folder / bundle.MANIFEST):
    return None
  saved = best.read(folder)
  scores = [one.bundle.manifest.get("best", {}).get("score") for one in saved]
  if len(saved) < 2 or None in scores:
    return None
  tuned = [from_bundle(one.bundle, one.path) for one in saved]
  if len({part.tasks for part in tuned}) > 1:
    return None
  number = max(range(len(saved)), key=lambda k: scores[k])
  if len(tuned[number].names) > 1:
    return None  # several parts; no single one is the whole run
  (name,) = tuned[number].names
  logger.info("%s has %d runs; using the best one, %s.", path, len(saved), name)
  return tuned[number]


def vectors(runs: Runs, run: int) -> dict[str, np.ndarray]:
  """Take the vectors of one run's virtual tokens.

  Args:
    runs: any runs.
    run: number of the run.

  Returns:
    `encoder` and `decoder`, where there are such tokens -> [P, H] float32.
  """
  placement, virtual = runs.placements[run], runs.delta.virtual
  rows = {
    "encoder": placement.encoder_rows,
    "decoder": placement.decoder_prefix,
  }
  if virtual is None:
    return {}
  values = np.asarray(virtual[run], np.float32)
  return {stack: values[list(r)] for stack, r in rows.items() if r}
