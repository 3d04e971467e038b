"""What counts as equal stands in one table, `tests/conftest.py`."""

import ast
import pathlib

TESTS = pathlib.Path(__file__).parent
EQUAL = {"assert_allclose": 2, "approx": 1}
WIDTHS = {"rtol", "atol", "rel", "abs"}


def literal_widths(source):
  """List the lines on which a number says how far equal things may differ."""
  lines = []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Call):
      continue
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    if name not in EQUAL:
      continue
    widths = [k.value for k in node.keywords if k.arg in WIDTHS]
    widths += node.args[EQUAL[name] :]
    parts = [part for width in widths for part in ast.walk(width)]
    constants = [p.value for p in parts if isinstance(p, ast.Constant)]
    if any(isinstance(value, int | float) for value in constants):
      lines.append(node.lineno)
  return lines


def test_no_tolerance_stands_outside_the_table():
  found = {
    f"{path.relative_to(TESTS)}:{line}"
    for path in TESTS.rglob("*.py")
    for line in literal_widths(path.read_text())
  }
  assert found == set()


def test_a_number_beside_the_table_is_seen():
  lines = (
    "np.testing.assert_allclose(a, b, rtol=1e-3)",
    "np.testing.assert_allclose(a, b, 1e-3)",
    "np.testing.assert_allclose(a, b, atol=1e-6 * largest)",
    "assert a == pytest.approx(b, abs=0.1)",
  )
  assert all(literal_widths(line) == [1] for line in lines)
  table = "np.testing.assert_allclose(a, b, **tolerance['sum'])"
  assert literal_widths(table) == []
  assert literal_widths("pytest.approx(b, rel=tolerance['sum']['rtol'])") == []
