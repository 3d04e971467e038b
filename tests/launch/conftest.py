"""Most trainings of these tests differ in nothing that is compiled."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def share_programs(compiled_once):
  """Compile every program once for all of them."""
