"""Every task's text, in files that a person can read.

`tests/golden/tasks/*.txt` hold what the real preprocessors make of invented
rows. After an intended change, write them anew with `UPDATE_GOLDEN=1 pytest
tests/data/tasks/test_golden.py` and review the difference.
"""

import importlib.util
import os
import pathlib

import pytest

from prompt_tuning.data import catalog, spec
from prompt_tuning.data.tasks import registry

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent.parent / "golden" / "tasks"


def _load(name):
  source = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
  module = importlib.util.module_from_spec(source)
  source.loader.exec_module(module)
  return module


ROWS = _load("invented_rows").ROWS


def visible(text):
  """Show line breaks, and blanks at the end."""
  return text.replace("\n", "\\n").replace("\t", "\\t") + "|"


def describe(render, name, rows):
  """Render one task's section."""
  lines = [f"== {name}"]
  for example in render(name, rows):
    others = {
      key: value
      for key, value in sorted(example.items())
      if key not in ("inputs", "targets")
    }
    lines += [
      "",
      f"inputs:  {visible(example['inputs'])}",
      f"targets: {visible(example['targets'])}",
      f"kept:    {others}",
    ]
  return "\n".join(lines) + "\n"


def plain_tasks(benchmark):
  """Return the tasks of a benchmark, but for those whose text is another's."""
  tasks = [spec.get(name) for name in spec.names()]
  return [
    task
    for task in tasks
    if isinstance(task, spec.TaskSpec)
    and task.benchmark == benchmark
    and not task.log_examples
    and not (benchmark == "glue" and "_v200" in task.name)
    and (benchmark != "perceptron" or task.name.endswith("_perceptron_train"))
  ]


def test_there_are_rows_for_every_task():
  for benchmark, rows in ROWS.items():
    assert {t.dataset for t in plain_tasks(benchmark)} == set(rows)
  # The text of skills is generated: `tests/data/test_skills.py` pins it.
  assert set(ROWS) == set(catalog.BENCHMARKS) - {"skills"}


@pytest.mark.parametrize("benchmark", ROWS)
def test_text_equals_the_golden_file(render, benchmark):
  sections = [
    describe(render, task.name, ROWS[benchmark][task.dataset])
    for task in plain_tasks(benchmark)
  ]
  text = "\n".join(sections)
  path = GOLDEN / f"{benchmark}.txt"
  if os.environ.get("UPDATE_GOLDEN"):
    path.write_text(text, encoding="utf-8")
  assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
  "name",
  [
    "super_glue_cb_v102",
    "taskless_super_glue_record_v102",
    "taskless_super_glue_wsc_v102_simple_train",
    "squad_v010_allanswers",
  ],
)
def test_example_logging_does_not_change_the_text(render, name):
  task = spec.task(name)
  rows = ROWS[task.benchmark][task.dataset]
  assert render(name, rows) == render(f"{name}_examples", rows)


@pytest.mark.parametrize("dataset", ROWS["glue"])
def test_both_glue_versions_read_the_same(render, dataset):
  rows = ROWS["glue"][dataset]
  assert render(f"glue_{dataset}_v002", rows) == render(
    f"glue_{dataset}_v200", rows
  )


@pytest.mark.parametrize("dataset", ROWS["perceptron"])
def test_all_tasks_of_a_perceptron_data_set_read_the_same(dataset):
  tasks = [spec.get(name) for name in spec.names()]
  forms = [
    [str(step) for step in registry.get(task.name).preprocessors[:2]]
    for task in tasks
    if getattr(task, "benchmark", "") == "perceptron"
    and task.dataset == dataset
  ]
  assert len(forms) == 6
  assert all(form == forms[0] for form in forms)


@pytest.mark.parametrize("benchmark", ROWS)
def test_every_declared_evaluation_feature_is_made(render, benchmark):
  for task in plain_tasks(benchmark):
    if task.name.startswith(("taskless_", "pr:")) or benchmark == "qa":
      first = render(task.name, ROWS[benchmark][task.dataset])[0]
      assert set(task.eval_features) == set(first) - {"inputs", "targets"}
