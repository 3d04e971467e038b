"""The published tasks as specs, one benchmark per module; no TensorFlow."""

from prompt_tuning.data.catalog import (
  c4,
  glue,
  glue_transfer,
  perceptron,
  qa,
  recycling,
  relation,
  skills,
  spot,
  summarization,
  super_glue,
  text_classification,
)

# Each is a module here, and the module of `prompt_tuning.data.tasks` that
# registers its seqio tasks.
BENCHMARKS = tuple(
  module.__name__.rpartition(".")[2]
  for module in (
    super_glue,
    glue,
    glue_transfer,
    qa,
    summarization,
    c4,
    spot,
    recycling,
    perceptron,
    text_classification,
    relation,
    skills,
  )
)
# Modules of the original whose tasks are all in one of these.
OF_THE_ORIGINAL = {
  "spot": tuple(
    f"spot.data.{name}"
    for name in ("tasks", "glue", "mrqa", "nli", "summarization")
  ),
  "recycling": tuple(
    f"recycling.data.{name}" for name in ("c4", "imdb", "qqp", "record", "sst2")
  ),
  "perceptron": ("extended.perceptron.data.tasks",),
}
