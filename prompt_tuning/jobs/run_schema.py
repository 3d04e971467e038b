"""The schema of runs in a bundle's manifest; it needs no JAX."""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.core import schema
from prompt_tuning.core.schema import NAME, TEXT, WHOLE, Fault, Maybe

# The keys of a manifest's `run` that are read, see `identity`.
_SCHEMA = {
  "runs": [{"name": NAME, "task?": Maybe(TEXT)}],
  "tuners": [{"class": TEXT}],
  "backbone": {"fingerprint": TEXT},
  "start_step": WHOLE,
}


def faults(manifest: Mapping[str, Any]) -> list[Fault]:
  """List faults in the description of a run in a bundle.

  Args:
    manifest: that of the bundle.

  Returns:
    The faults; empty if the runs can be rebuilt from it.
  """
  listed = schema.faults(dict(manifest), {"run": _SCHEMA})
  if listed:
    return listed
  runs, tuners = manifest["run"]["runs"], manifest["run"]["tuners"]
  names = [run["name"] for run in runs]
  if not names or len(set(names)) < len(names) or (names[1:] and "" in names):
    listed.append(
      Fault("run.runs", "at least one, each with a different name", f"{names}")
    )
  if len(tuners) not in (0, len(names)):
    listed.append(
      Fault("run.tuners", f"none, or {len(names)}", f"{len(tuners)}")
    )
  index = manifest.get("run_index", 0)
  if not index < len(names):
    expected = f"the number of one of {len(names)} runs"
    listed.append(Fault("run_index", expected, f"{index}"))
  return listed
