"""`prompt-tuning export`: a run's prompts for other programs."""

import numpy as np
import pytest

from prompt_tuning.checkpoints import bundle, restore
from prompt_tuning.jobs import export, load
from prompt_tuning.jobs.identity import describe_method, rebuild
from prompt_tuning.launch import main
from prompt_tuning.tuners.initializers import ClassLabels
from prompt_tuning.tuners.prompt import Prompt


def test_every_run_of_a_folder(finished, tmp_path, capsys):
  assert main.main(["export", str(finished), str(tmp_path)]) == 0
  out = capsys.readouterr().out
  for name in ("seed0", "seed1"):
    ours = tmp_path / name
    theirs = finished / "exports" / name
    array = np.load(ours / "prompt.npy")
    np.testing.assert_array_equal(array, np.load(theirs / "prompt.npy"))
    adapter = restore.open_prompt(ours / "peft").values
    np.testing.assert_array_equal(adapter, array)
    assert f"{ours}/prompt.npy: written" in out


def test_one_bundle_in_one_view(finished, tmp_path):
  (path,) = (finished / "best" / "run_1").iterdir()
  argv = ["export", str(path), str(tmp_path), "--to", "npy"]
  assert main.main(argv) == 0
  written = {p.name for p in (tmp_path / "seed1").iterdir()}
  assert written == {"README.md", "delta", "prompt.npy"}


def test_nothing_to_export(tmp_path, capsys):
  assert main.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
  assert "error: " in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_t5x_loads_the_array(finished, tmp_path):
  """T5X's prompt tuning reads it with np.load and insists on its shape."""
  assert main.main(["export", str(finished), str(tmp_path)]) == 0
  array = np.load(tmp_path / "seed0" / "prompt.npy", allow_pickle=False)
  assert (array.shape, array.dtype) == ((100, 4), np.float32)


def test_a_method_survives_its_description():
  prompt = Prompt(
    4,
    encoder_length=3,
    decoder_length=2,
    encoder_position="after",
    encoder_init=ClassLabels(["a"]),
  )
  again = rebuild(describe_method(prompt))
  assert again.placement == prompt.placement
  assert again.encoder_length == 3


def test_an_unknown_method_is_named():
  with pytest.raises(ValueError, match=r"'Prompd'.*Did you mean 'Prompt'"):
    rebuild({"class": "Prompd", "emb_dim": 4})


def test_a_tuned_model_is_no_prompt(tmp_path, capsys):
  arrays = {"model/a": np.zeros((1, 2), np.float32)}
  described = {
    "runs": [{"name": ""}],
    "tuners": [],
    "backbone": {"fingerprint": "abc"},
    "start_step": 0,
  }
  manifest = {"run": described, "step": 1}
  bundle.write(tmp_path / "b", bundle.Bundle(manifest, arrays))
  with pytest.raises(ValueError, match="holds the weights of a tuned model"):
    load.load_one(tmp_path / "b")
  assert main.main(["export", str(tmp_path / "b"), str(tmp_path / "x")]) == 2
  assert "there is no delta to export" in capsys.readouterr().err
  assert not (tmp_path / "x").exists()


def test_where_nothing_was_scored_the_last_bundle_counts(finished, tmp_path):
  (tmp_path / "run" / "bundles").mkdir(parents=True)
  step, last = bundle.read_latest(finished / "bundles")
  progress = {**last.manifest["progress"], "best": [None, None]}
  unscored = bundle.Bundle(
    {**last.manifest, "progress": progress}, last.trainable
  )
  bundle.write(bundle.step_path(tmp_path / "run" / "bundles", step), unscored)
  found = load.load(tmp_path / "run")
  assert found.names == ("seed0", "seed1")
  assert found.step == 1_100_004
  (weights,) = last.trainable.values()
  np.testing.assert_array_equal(found.runs.delta.virtual, weights)


def test_views_of_another_delta_are_removed(finished, tmp_path):
  """They would show something else than the delta beside them."""
  first, second = ((finished / "best" / f"run_{k}") for k in (0, 1))
  out = tmp_path / "out"
  for run in (first, second):
    (path,) = run.iterdir()
    tuned = load.load(path)
    export.export(tuned.runs, 0, out, export.Origin(tuned.methods[0]))
    # Views can be added one after the other.
    for views in (["npy"], ["peft"]):
      origin = export.Origin(tuned.methods[0])
      export.export(tuned.runs, 0, out, origin, views=views)
      written = {path.name for path in out.iterdir()}
      assert written == {"README.md", "delta", "prompt.npy", "peft"}
      text = (out / "README.md").read_text()
      assert all(f"- `{name}`: " in text for name in written - {"README.md"})
  (path,) = first.iterdir()
  tuned = load.load(path)
  export.export(tuned.runs, 0, out, export.Origin(tuned.methods[0]), views=())
  assert {path.name for path in out.iterdir()} == {"README.md", "delta"}


def test_an_export_in_the_old_place_is_cleared(finished, tmp_path):
  """A run that was alone was once exported without a folder of its own."""
  (path,) = (finished / "best" / "run_0").iterdir()
  tuned = load.load(path)
  origin = export.Origin(tuned.methods[0])
  for folder in (tmp_path, tmp_path / "task"):
    export.export(tuned.runs, 0, folder, origin)
  (tmp_path / "notes.txt").write_text("the user's")
  export.clear(tmp_path)
  assert {path.name for path in tmp_path.iterdir()} == {"task", "notes.txt"}
  written = {path.name for path in (tmp_path / "task").iterdir()}
  assert written == {"README.md", "delta", "prompt.npy", "peft"}


def test_a_folder_of_somebody_elses_views_is_left(finished, tmp_path):
  np.save(tmp_path / "prompt.npy", np.zeros((2, 4), np.float32))
  (path,) = (finished / "best" / "run_0").iterdir()
  tuned = load.load(path)
  origin = export.Origin(tuned.methods[0])
  export.export(tuned.runs, 0, tmp_path, origin, views=())
  written = {path.name for path in tmp_path.iterdir()}
  assert written == {"README.md", "delta", "prompt.npy"}
