"""Configurations that gin files build."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.launch import configurables, main
from prompt_tuning.models.t5 import network

# The second row is padding throughout.
BATCH = {
  "encoder_input_tokens": jnp.asarray([[5, 6, 1], [0, 0, 0]], jnp.int32),
  "decoder_input_tokens": jnp.asarray([[0, 7], [0, 0]], jnp.int32),
  "decoder_target_tokens": jnp.asarray([[7, 1], [0, 0]], jnp.int32),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_padded_row_is_finite(random_params, dtype):
  config = configurables.t5("t5_1_1", "tiny", dtype=dtype)
  model = network.T5(config)
  params = random_params(config)
  logits = model.apply({"params": params}, BATCH)
  assert config.dtype == dtype
  assert np.all(np.isfinite(logits))


@pytest.mark.parametrize(
  "dtype", ["float16", "float64", "int8", "flaot32", None]
)
def test_other_activations_are_refused(tiny_checkpoint, dtype):
  says = f"ACTIVATION_DTYPE {dtype!r}: expected 'float32' or 'bfloat16'"
  with pytest.raises(ValueError, match=says):
    configurables.t5("t5_1_1", "tiny", dtype=dtype)
  with pytest.raises(ValueError, match=says):
    configurables.t5_of_checkpoint(tiny_checkpoint, dtype=dtype)


def test_a_command_says_which_setting_it_refuses(capsys):
  flags = [
    "--topology=v5e:1x1",
    "--gin_file=models/t5_1_1_tiny_prompt.gin",
    "--gin_file=runs/prompt_finetune.gin",
    "--gin.MODEL_DIR='unused'",
    "--gin.INITIAL_CHECKPOINT_PATH='unused'",
    "--gin.MIXTURE_OR_TASK_NAME='taskless_super_glue_rte_v102'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 20, 'targets': 8}",
    "--gin.TRAIN_STEPS=1",
    "--gin.ACTIVATION_DTYPE='float16'",
  ]
  assert main.main(["plan", *flags]) == 2
  assert "ACTIVATION_DTYPE 'float16'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", 5])
def test_tokens_are_counted_of_a_text(text):
  with pytest.raises(ValueError, match=f"TASK_STRING must .*; got {text!r}"):
    configurables.count_tokens(text)
