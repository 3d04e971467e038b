"""Register a templated task with seqio, see `prompt_tuning.data.templated`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.core import tree
from prompt_tuning.data import custom, spec, tables, templated, vocabulary
from prompt_tuning.data.tasks import registration
from prompt_tuning.prompting.rendering import Renderer
from prompt_tuning.prompting.template import Template

_TEXT = tf.TensorSpec((), tf.string)
_TEXTS = tf.TensorSpec((None,), tf.string)


def register(task: spec.TaskSpec, base: seqio.Task) -> None:
  """Register a task made by `templated.declare`.

  Args:
    task: the task.
    base: the seqio task of TFDS whose rows it uses.
  """
  source = base.source
  if task.source == spec.FILE:
    source = _source_of_files(task)

  def render(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return _render(task, dataset)

  seqio.TaskRegistry.add(
    task.name,
    source=source,
    preprocessors=[
      render,
      seqio.CacheDatasetPlaceholder(),
      _shorten(task),
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=task.postprocess,
    metric_fns=list(task.metrics),
    output_features=registration.FEATURES,
  )


def _source_of_files(task: spec.TaskSpec) -> seqio.DataSource:
  """Make a source with the fields that the template needs."""
  base = spec.task(task.content["base"]["name"])
  renderer = _renderer(task)
  fields = [
    templated.field_of_row(task, field) for field in renderer.template.fields
  ]

  def dataset(
    split: str, shuffle_files: bool, seed: int | None = None
  ) -> tf.data.Dataset:
    del shuffle_files, seed  # one file: its order is fixed
    # Read here, since TensorFlow would replace the error by its own.
    rows = [
      {
        **{field: _cells(row, field) for field in fields},
        **{key: example[key] for key in ("label", "idx", "answers")},
      }
      for row, example in custom.rows_with_columns(base, split)
    ]

    def generate() -> Iterator[dict[str, Any]]:
      yield from rows

    signature = {
      **dict.fromkeys(fields, _TEXTS),
      "label": tf.TensorSpec((), tf.int64),
      "idx": _TEXT,
      "answers": _TEXTS,
    }
    return tf.data.Dataset.from_generator(generate, output_signature=signature)

  return seqio.FunctionDataSource(dataset, splits=tuple(task.splits))


def _cells(row: tables.Row, field: str) -> list[str]:
  """Return a field of a file as a list of texts; most have one."""
  value = row.value(field, "the template")
  if isinstance(value, list):
    return [
      tables.as_text(f"{row.place}: {field!r}", part, "the template")
      for part in value
    ]
  return [row.text(field, "the template")]


def _render(task: spec.TaskSpec, dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Write the inputs and targets of every row."""
  renderer = _renderer(task)
  names = renderer.template.fields
  _check_fields(task, renderer.template, dataset.element_spec)
  words = vocabulary.load()
  texts = (*task.label_words, spec.UNLABELLED)
  targets = [np.array(ids, np.int32) for ids in words.encode_batch(texts)]

  def write(label: np.ndarray, *values: np.ndarray) -> tuple[Any, ...]:
    row = renderer.render(dict(zip(names, map(_plain, values), strict=True)))
    # A missing label is -1, which selects the last entry.
    target, text = targets[int(label)], texts[int(label)]
    return row.ids, row.parts, row.text.encode(), target, text.encode()

  def one(row: Mapping[str, Any]) -> dict[str, Any]:
    fields = [_at(row, templated.field_of_row(task, name)) for name in names]
    inputs, parts, text, target, answer = tf.numpy_function(
      write,
      [row["label"], *map(_as_text, fields)],
      (tf.int32, tf.int32, tf.string, tf.int32, tf.string),
    )
    for ids in (inputs, parts, target):
      ids.set_shape((None,))
    for scalar in (text, answer):
      scalar.set_shape(())
    return {
      "inputs": inputs,
      spec.INPUTS: text,
      templated.PARTS: parts,
      "targets": target,
      spec.TARGETS: answer,
      "label": row["label"],
      **{name: _at(row, name) for name in task.eval_features},
    }

  return dataset.map(one, num_parallel_calls=tf.data.experimental.AUTOTUNE)


def _shorten(task: spec.TaskSpec) -> registration.Preprocessor:
  """Make the step that shortens inputs if seqio gets their length."""

  def shorten(
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int | None] | None = None,
  ) -> tf.data.Dataset:
    limit = (sequence_length or {}).get("inputs")
    if not limit:
      return dataset
    renderer = _renderer(task)

    def cut(ids: np.ndarray, parts: np.ndarray) -> tuple[Any, ...]:
      stay = renderer.shorten(ids, parts, limit - 1)  # EOS follows
      return ids[stay], parts[stay]

    def one(row: Mapping[str, Any]) -> dict[str, Any]:
      ids, parts = tf.numpy_function(
        cut, [row["inputs"], row[templated.PARTS]], (tf.int32, tf.int32)
      )
      ids.set_shape((None,))
      parts.set_shape((None,))
      return {**row, "inputs": ids, templated.PARTS: parts}

    return dataset.map(one, num_parallel_calls=tf.data.experimental.AUTOTUNE)

  return shorten


def _renderer(task: spec.TaskSpec) -> Renderer:
  renderer = templated.renderer(task, vocabulary.load())
  assert renderer is not None
  return renderer


def _check_fields(
  task: spec.TaskSpec, template: Template, row: Mapping[str, Any]
) -> None:
  for field in template.fields:
    name = templated.field_of_row(task, field)
    if _find(row, name) is None:
      raise ValueError(
        f"{template.place}: the template's field {field!r} is not a field of "
        f"the rows of {task.source}.{tree.nearest(name, row)} They have: "
        f"{', '.join(row)}. Set `fields` to say which field you mean: "
        f"{{{field!r}: ...}}."
      )


def _find(row: Mapping[str, Any], name: str) -> Any:
  """Return a field, perhaps one inside another: `passage/text`."""
  value: Any = row
  for key in [name] if name in row else name.split("/"):
    if not isinstance(value, Mapping) or key not in value:
      return None
    value = value[key]
  return None if isinstance(value, Mapping) else value


def _at(row: Mapping[str, Any], name: str) -> Any:
  value = _find(row, name)
  if value is None:
    raise ValueError(f"No field {name!r} among {', '.join(row)}.")
  return value


def _as_text(value: tf.Tensor) -> tf.Tensor:
  return value if value.dtype == tf.string else tf.strings.as_string(value)


def _plain(value: np.ndarray | bytes) -> str | list[str]:
  """Decode a field to its only text, or to a list of texts."""
  texts = [part.decode("utf-8") for part in np.atleast_1d(value).tolist()]
  return texts[0] if len(texts) == 1 else texts
