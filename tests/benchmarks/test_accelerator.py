"""Rates on one device, which here is a CPU."""

import json

import pytest

from benchmarks import accelerator
from benchmarks.sides import work
from benchmarks.steps import PEFT, PROJECT
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import cost


def test_both_sides_do_the_same_in_bfloat16(tmp_path):
  shape = work.Shape(2, 8, accelerator.TARGETS)
  words = "--sizes t5_1_1_tiny --rows 2 --inputs 8 --steps 2 --rounds 1"
  words += f" --peak_tflops 0.001 --out {tmp_path}"
  assert accelerator.main(words.split()) == 0
  found = json.loads((tmp_path / "accelerator.json").read_text())
  assert list(found["t5_1_1_tiny"]) == [PROJECT, PEFT]
  for one in found["t5_1_1_tiny"].values():
    assert one["device"] == "cpu"
    seconds = one["step_s"]["median"]
    assert one["tokens_per_s"] == 2 * (8 + accelerator.TARGETS) / seconds
    flops = accelerator.step_flops("t5_1_1_tiny", shape)
    assert one["utilisation"] == pytest.approx(flops / seconds / 1e9)


def test_arithmetic_is_four_operations_per_parameter_and_position():
  counts = cost.count_parameters(t5_config.get("t5_1_1_xl"))
  positions = 100 + 512
  expected = positions * counts["encoder"]
  expected += 8 * (counts["decoder"] + counts["head"])
  shape = work.Shape(3, 512, 8)
  assert accelerator.step_flops("t5_1_1_xl", shape) == 3 * 4 * expected


@pytest.mark.parametrize(
  ("device", "tflops"),
  [
    ("NVIDIA H100 80GB HBM3", 989),
    ("NVIDIA H100 PCIe", 756),
    ("TPU v5 lite", 197),
    ("TPU v5p", 459),
  ],
)
def test_peaks_by_name(device, tflops):
  assert accelerator.peak(device) == tflops * 1e12


def test_the_peak_of_another_device_is_not_guessed():
  assert accelerator.peak("cpu") is None
  one = {
    "device": "cpu",
    "step_s": {"median": 1.0, "least": 1.0, "most": 1.0},
    "tokens_per_s": 10.0,
    "utilisation": None,
  }
  assert "unknown" in accelerator.markdown({"t5_1_1_tiny": {PROJECT: one}})
