"""Similarities of prompts: both of SPoT's, tables, pictures, errors."""

import json

import numpy as np
import pytest

from prompt_tuning.jobs import similarity
from prompt_tuning.launch import main

RNG = np.random.default_rng(0)
PROMPTS = {
  "one": RNG.normal(size=(3, 8)),
  "like_one": np.zeros((5, 8)),
  "other": RNG.normal(size=(4, 8)),
}
PROMPTS["like_one"] = np.tile(PROMPTS["one"].mean(0), (5, 1)) * 2


def cosine(a, b):
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_means_over_positions(tolerance):
  found = similarity.of(PROMPTS)
  expected = [
    [cosine(a.mean(0), b.mean(0)) for b in PROMPTS.values()]
    for a in PROMPTS.values()
  ]
  np.testing.assert_allclose(found.matrix, expected, **tolerance["double"])
  assert found.sources("one")[0][0] == "like_one"
  assert found.sources("one")[0][1] == pytest.approx(1)


def test_all_pairs_of_positions(tolerance):
  found = similarity.of(PROMPTS, "tokens")
  expected = [
    [np.mean([cosine(x, y) for x in a for y in b]) for b in PROMPTS.values()]
    for a in PROMPTS.values()
  ]
  np.testing.assert_allclose(found.matrix, expected, **tolerance["double"])


@pytest.mark.parametrize(
  ("prompts", "message"),
  [
    ({"one": PROMPTS["one"]}, "Got 1 prompts"),
    (
      {"a": np.ones((2, 3)), "b": np.ones((2, 4))},
      "different widths.*a: 3, b: 4",
    ),
    ({"a": np.ones((2, 3)), "b": np.zeros((2, 3))}, "b has vectors of zeros"),
  ],
)
def test_what_cannot_be_compared(prompts, message):
  with pytest.raises(ValueError, match=message):
    similarity.of(prompts)


@pytest.fixture
def folder(tmp_path):
  for name, vectors in PROMPTS.items():
    np.save(tmp_path / f"{name}.npy", vectors.astype(np.float32))
  return tmp_path


def test_the_command_prints_a_table_and_draws_a_picture(folder, capsys):
  paths = [str(folder / f"{name}.npy") for name in PROMPTS]
  out = folder / "out"
  assert main.main(["similar", *paths, f"--out={out}"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == list(PROMPTS)
  assert lines[1].split()[:3] == ["one", "1.00", "1.00"]
  assert [line for line in lines if line.startswith("one  ")][-1].split()[
    1
  ] == ("like_one")
  numbers = json.loads((out / "similarity.json").read_text())
  assert numbers["names"] == list(PROMPTS)
  assert np.shape(numbers["cosines"]) == (3, 3)
  assert (out / "similarity.png").read_bytes()[1:4] == b"PNG"


def test_names_may_be_given(folder, capsys):
  one, other = folder / "one.npy", folder / "other.npy"
  assert main.main(["similar", f"rte={one}", f"cb={other}"]) == 0
  assert capsys.readouterr().out.split()[:2] == ["rte", "cb"]
  assert main.main(["similar", str(one), str(one)]) == 2
  assert "name one occurs twice; give one" in capsys.readouterr().err
  argv = ["similar", str(one), str(other), f"--out={one}/below"]
  assert main.main(argv) == 2
  assert "error: --out cannot be written to" in capsys.readouterr().err
  assert main.main(["similar", str(one), "nowhere.npy"]) == 2
  assert "nowhere.npy" in capsys.readouterr().err
