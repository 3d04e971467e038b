"""Costs of a T5: parameters, arithmetic per token, memory of long texts."""

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
    config: configuration of the model.

  Returns:
    `encoder`, `decoder` (without the head), `head` (0 if it is tied) and
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
    config: configuration of the model.
    frozen: whether the model's own parameters are frozen, so that their
      gradients are not computed.

  Returns:
    Floating-point operations of an encoder token and of a decoder token: 6 (4
    if frozen) per parameter that multiplies the token, including the head.
    Products between positions in attention are left out, so that the number
    does not depend on lengths.

  Source: Kaplan et al. 2020, section 2.1, without attention's own term.
  """
  counts = count_parameters(config)
  head = counts["head"] or counts["table"]
  each = 4.0 if frozen else 6.0
  return each * counts["encoder"], each * (counts["decoder"] + head)


def attention_bytes(config: T5Config, rows: int, length: int) -> int:
  """Estimate the memory of an encoder layer's attention.

  Args:
    config: configuration of the model.
    rows: rows of a batch on one device.
    length: positions of a row, T.

  Returns:
    Bytes: position biases, and three times the logits of the rows that are
    computed together, as measured on a CPU. It grows with the square of the
    length.
  """
  size = config.num_heads * length**2 * np.dtype(config.dtype).itemsize
  limit = config.attention_bytes
  together = rows if limit is None else min(rows, max(1, limit // size))
  return size * (1 + 3 * together)


def warn_of_length(config: T5Config, rows: int, length: int) -> None:
  """Warn once per model of the memory that long, unlimited inputs need.

  Args:
    config: configuration of the model.
    rows: rows of a batch on one device.
    length: length of the longest input, in tokens.
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
