"""What a T5 costs: parameters, and arithmetic per token."""

import math

from prompt_tuning.core import tree
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config

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
