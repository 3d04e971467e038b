"""What a tuning method may change in a frozen model: optional arrays per site.

A tuner produces a `Delta`, and `models.t5.sites` applies it; a `Delta` does not
say where its numbers come from. Every array has a leading run axis of size K;
arrays per layer have the layer axis L second. A field left at its default
leaves the model unchanged, bit for bit.

Sites are named by sublayer:

  attention   enc_self, dec_self, cross
  MLP         enc_mlp, dec_mlp

and, inside a sublayer, by kernel: `enc_self/query`, `cross/out`,
`dec_mlp/wi_0`, ...; `<mlp>/hidden` is the MLP's activation before `wo`. The
norm of a sublayer comes before it; the norm of a stack (`encoder`, `decoder`)
comes after its last layer.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax

from prompt_tuning.core.site_names import ATTENTION_SITES as ATTENTION_SITES
from prompt_tuning.core.site_names import MLP_SITES as MLP_SITES
from prompt_tuning.core.site_names import NORM_SITES as NORM_SITES
from prompt_tuning.core.site_names import STACKS as STACKS
from prompt_tuning.core.site_names import SUBLAYER_SITES as SUBLAYER_SITES
from prompt_tuning.core.types import Array

# Entry of `Delta.word_weights` where there is no word: its softmax is zero.
NO_WORD = -1e9


class Prefix(NamedTuple):
  """Keys and values that every query of an attention site also sees.

  Attributes:
    key: [K, L, P, N, D].
    value: [K, L, P, N, D].
    mask: [K, L, P] booleans, False where there is no key; None if all exist.
    positioned: [K, L] booleans. True: the prefix stands right before the text,
      with T5's relative position bias. False, or None for all: it has no
      position, and its bias is zero. Cross-attention has no positions.
  """

  key: Array
  value: Array
  mask: Array | None = None
  positioned: Array | None = None


class Bottleneck(NamedTuple):
  """An adapter on a sublayer's output y: y + norm(up(gelu(down(y)))).

  Attributes:
    down: [K, L, H, R].
    up: [K, L, R, H].
    down_bias: [K, L, R] or None.
    up_bias: [K, L, H] or None.
    norm_scale: [K, L, H] or None; with it, a LayerNorm (eps 1e-5) follows `up`.
    norm_bias: [K, L, H] or None.
    normed: [K, L] booleans, False where there is no LayerNorm. None: every
      layer has one, if there is a `norm_scale`.
    parallel: [K, L] booleans, True where the adapter reads the sublayer's
      normed input, and not its output; None for nowhere.
  """

  down: Array
  up: Array
  down_bias: Array | None = None
  up_bias: Array | None = None
  norm_scale: Array | None = None
  norm_bias: Array | None = None
  normed: Array | None = None
  parallel: Array | None = None


class LowRank(NamedTuple):
  """A rank-R update of one kernel: y + (x @ a) @ b.

  Attributes:
    a: [K, L, inputs, R].
    b: [K, L, R, outputs].
  """

  a: Array
  b: Array


class Hidden(NamedTuple):
  """Per-layer prompt vectors at the virtual tokens of one stack.

  Attributes:
    values: [K, L, P, H]; row p acts where the input holds virtual token p.
    replace: [K, L, P] booleans: True to replace the layer's input there (deep
      prompts), False to add to it.
  """

  values: Array
  replace: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Delta:
  """Everything a tuning method adds to the frozen model.

  Attributes:
    virtual: [K, P, H], the vectors of token ids V, V+1, ..., V+P-1 (V = rows of
      the embedding table), in encoder and decoder inputs alike.
    prefix: attention site -> extra keys and values.
    hidden: stack (`encoder`, `decoder`) -> per-layer vectors at virtual tokens.
    bottleneck: sublayer site -> adapter on that sublayer's output.
    lowrank: `<sublayer>/<kernel>` -> low-rank update of that kernel.
    scale: `<sublayer>/<kernel>` or `<mlp>/hidden` -> [K, L, features], a factor
      on that activation (on a kernel's output).
    norm: sublayer site -> [K, L, H], or stack -> [K, 1, H], a factor on the
      scale of that norm.
    head_rows: [K, C, H], output rows that give logits V, ..., V+C-1. Such an
      answer word ends its sequence, because as an input the same id would be a
      virtual token.
    head_mask: [K, C] booleans, False for words that a run does not have; None
      if every run has all.
    sight: [K, 3] booleans: whether a virtual token of the encoder's input sees
      the virtual tokens before it, those after it, and the text. It always sees
      itself, and the text always sees all virtual tokens.
    log_weight: [K], the logarithm of a run's share in a mixture of runs. The
      model does not read it; the code that mixes runs does.
    word_weights: [K, C, W], learned weights of the W label words of each of C
      classes, before a softmax over the words of a class; `NO_WORD` where a
      class has no word. The model does not read them; scorers do.
  """

  virtual: Array | None = None
  prefix: Mapping[str, Prefix] = dataclasses.field(default_factory=dict)
  hidden: Mapping[str, Hidden] = dataclasses.field(default_factory=dict)
  bottleneck: Mapping[str, Bottleneck] = dataclasses.field(default_factory=dict)
  lowrank: Mapping[str, LowRank] = dataclasses.field(default_factory=dict)
  scale: Mapping[str, Array] = dataclasses.field(default_factory=dict)
  norm: Mapping[str, Array] = dataclasses.field(default_factory=dict)
  head_rows: Array | None = None
  head_mask: Array | None = None
  sight: Array | None = None
  log_weight: Array | None = None
  word_weights: Array | None = None
