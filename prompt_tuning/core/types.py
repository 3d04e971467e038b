"""Array aliases, and the shape letters that every docstring uses.

B  batch (rows)            S  decoder length      V  embedding-table rows
T  encoder length          P  prompt length       L  layers of one stack
H  d_model                 N  attention heads     K  runs in a bank
D  head dimension          F  d_ff                R  rank, bottleneck width
C  classes, extra output rows
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

# JAX is slow to import, and commands that only read a file do not need it.
if TYPE_CHECKING:
  from jax import Array
else:
  Array = Any

DType = Any  # anything jnp.dtype() accepts
Shape = tuple[int, ...]
PyTree = Any
# A tree of parameters: nested string-keyed mappings whose leaves are arrays (or
# `jax.ShapeDtypeStruct`s). Flat form: {"encoder/layers_0/...": leaf}.
Params = Mapping[str, Any]
# One training or inference batch under T5X's feature names, see
# `prompt_tuning.models.t5.network`.
Batch = Mapping[str, Array]

PAD_ID = 0  # also the decoder's start token; T5 has no BOS piece
EOS_ID = 1
UNK_ID = 2
