"""What a T5 costs: parameters, arithmetic per token, memory of long texts."""

import logging
import math

import numpy as np

from prompt_tuning.core import tree
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config

logger = logging.getLogger(__name__)

_LONG_BYTES = 1 << 30
_told: set[T5Config] = set()

_TABLE, _HEAD = "token_embedder/", "decoder/logits_dense/"


def count_parameters(config: T5Config) -> dict[str, int]:
  """Count the parameters of each part.

  Args:
    config: of the model.

  Returns:
    `encoder`, `decoder` (without the head), `head` (0 where it is tied) and
    `table`. The first two are the non-embedding parameters.
  """
  counts = dict.fromkeys(("encoder", "decoder", "head", "table"), 0)
  for path, leaf in tree.flatten(network.abstract_params(config)).items():
    part = path.split("/")[0]
    if path.startswith(_TABLE):
      part = "table"
    elif path.startswith(_HEAD):
      part = "head"
    counts[part] += math.prod(leaf.shape)
  return counts


def flops_per_token(
  config: T5Config, frozen: bool = False
) -> tuple[float, float]:
  """Estimate the arithmetic of training on one token.

  Args:
    config: of the model.
    frozen: whether the model's own parameters stay: their gradients are not
      computed then.

  Returns:
    Floating-point operations of an encoder token and of a decoder token: 6
    (4 if frozen) per parameter that multiplies it, the head among them. The
    products of attention between positions are left out, so that the number
    does not depend on lengths.

  Source: Kaplan et al. 2020, section 2.1, without attention's own term.
  """
  counts = count_parameters(config)
  head = counts["head"] or counts["table"]
  each = 4.0 if frozen else 6.0
  return each * counts["encoder"], each * (counts["decoder"] + head)


def attention_bytes(config: T5Config, rows: int, length: int) -> int:
  """Estimate the memory that an encoder layer takes for its attention.

  Args:
    config: of the model.
    rows: of a batch on one device.
    length: T, positions of a row.

  Returns:
    Bytes: position biases, and three times the logits of the rows that are
    computed together, as measured on a CPU; it grows with the length's square.
  """
  size = config.num_heads * length**2 * np.dtype(config.dtype).itemsize
  limit = config.attention_bytes
  together = rows if limit is None else min(rows, max(1, limit // size))
  return size * (1 + 3 * together)


def warn_of_length(config: T5Config, rows: int, length: int) -> None:
  """Say what long inputs without a limit are going to take, once per model.

  Args:
    config: of the model.
    rows: of a batch on one device.
    length: of the longest input, in tokens.
  """
  needed = attention_bytes(config, rows, length)
  if needed < _LONG_BYTES or config in _told:
    return
  _told.add(config)
  logger.warning(
    "Inputs have no limit, and one has %s tokens: attention over such a batch "
    "takes about %.1f GB. To cut longer ones, set `inputs` of "
    "TASK_FEATURE_LENGTHS (input_length in Python), such as to 512.",
    f"{length:,}",
    needed / 1e9,
  )
