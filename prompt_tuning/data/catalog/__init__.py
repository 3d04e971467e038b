"""The published tasks as specs, one benchmark per module; no TensorFlow."""

from prompt_tuning.data.catalog import (
  glue,
  glue_transfer,
  qa,
  skills,
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
    text_classification,
    skills,
  )
)
