"""The restored model is set up for the machine that it lies on."""

import dataclasses

import jax
import pytest

from prompt_tuning.checkpoints import backbone
from prompt_tuning.core import axes
from prompt_tuning.models.t5 import config as t5_config

# Sizes that a mesh of 2 x 4 divides.
TINY = t5_config.get("t5_1_1_tiny", vocab_size=64, num_heads=4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about one CPU")
def test_rows_take_turns_in_attention_on_one_cpu_only():
  rules = axes.STANDARD_RULES
  alone = backbone.fresh(TINY, None, rules, 0).config
  assert alone.attention_bytes == 8 << 20
  assert dataclasses.replace(alone, attention_bytes=None) == TINY
  mesh = axes.make_mesh(2, 4)
  assert backbone.fresh(TINY, mesh, rules, 0).config == TINY


def test_what_is_asked_for_stays():
  asked = dataclasses.replace(TINY, attention_bytes=100)
  found = backbone.fresh(asked, None, axes.STANDARD_RULES, 0)
  assert found.config == asked
