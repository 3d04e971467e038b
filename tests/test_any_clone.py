"""Tests that need real data have a counterpart that any clone can run."""

import ast
import pathlib

TESTS = pathlib.Path(__file__).parent
# Fixtures of real data: without `../shared` whoever asks for them is skipped.
REAL = {"shared_data", "published_vocabulary_file"}
# A file that needs them -> one of the same subject that does not, where its own
# other tests do not serve.
COUNTERPARTS = {
  "data/tasks/test_real_rows.py": "data/tasks/test_golden.py",
  "data/test_flow.py": "data/prepare/test_prepare.py",
  "launch/test_real_input.py": "launch/test_train.py",
  "t5x/test_training.py": "t5x/test_scores.py",
}


def needs_real_data(path):
  """Name of a test -> whether it asks for real data, directly or not."""
  asked, everywhere = {}, set()
  for node in ast.walk(ast.parse(path.read_text("utf-8"))):
    if isinstance(node, ast.FunctionDef):
      asked[node.name] = {argument.arg for argument in node.args.args}
      if "autouse=True" in "".join(map(ast.unparse, node.decorator_list)):
        everywhere.add(node.name)
  real, grown = set(REAL), True
  while grown:
    more = {name for name, needs in asked.items() if needs & real} - real
    real, grown = real | more, bool(more)
  tests = [name for name in asked if name.startswith("test_")]
  return {name: name in real or bool(everywhere & real) for name in tests}


def test_every_file_has_a_counterpart():
  found = {
    path.relative_to(TESTS).as_posix(): needs_real_data(path)
    for path in sorted(TESTS.rglob("test_*.py"))
  }
  assert sum(any(tests.values()) for tests in found.values()) > 5
  only_real = {name for name, tests in found.items() if all(tests.values())}
  assert only_real == COUNTERPARTS.keys()
  for name in COUNTERPARTS.values():
    assert not any(found[name].values()), name
