"""Training and evaluation batches from tokenised examples.

Everything here is numpy and grain: neither TensorFlow nor seqio is imported.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from prompt_tuning.core import files, schema
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.schema import TEXT, WHOLE
from prompt_tuning.data import order, planning
from prompt_tuning.data.assembly import Assembler, ExamplePlaces, NumpyBatch
from prompt_tuning.data.ragged import Ragged, concatenate

# The examples of this many batches are planned together: more give fuller rows
# and buckets, fewer stay closer to a uniform shuffle.
WINDOW_BATCHES = 64
# Batches that are made while the device works on another.
_AHEAD = 2
# The result of `get_state`.
_STATE = {"identity": TEXT, "window": WHOLE, "batch": WHOLE, "carried": [WHOLE]}


class Tokens(Protocol):
  """The tokenised examples of one split, see `prompt_tuning.data.cache`.

  Attributes:
    inputs: token rows, EOS included.
    targets: token rows, EOS included.
    lengths: limits of `inputs` and `targets`, None for the longest example.
    key: changes whenever the tokens do.
  """

  inputs: Ragged
  targets: Ragged
  lengths: Mapping[str, int | None]
  key: str


@dataclasses.dataclass(frozen=True)
class Layout:
  """Settings that all batches of a model share.

  Attributes:
    placement: the positions of the virtual tokens; the limits of the token
      store do not include them.
    vocab_rows: rows of the embedding table, which is also the first virtual id.
  """

  placement: Placement = dataclasses.field(default_factory=Placement)
  vocab_rows: int = 32_128


TEXT_ONLY = Layout()


class TrainBatches(grain.IterDataset[NumpyBatch]):
  """Endless, shuffled training batches; their position can be saved.

  Every epoch is a new permutation of the examples; batches are cut from the
  endless sequence of epochs. Batches are dictionaries with T5X's names and
  include virtual tokens, see `Assembler`. Iterating gives a grain iterator:
  `get_state()` returns a small JSON-representable dictionary, and after
  `set_state` the batches continue exactly, on any number of hosts. `prefetch`
  makes batches ahead in a thread.

  `batching` decides the shapes:

  * `fixed`: every batch is padded to the limits, as in T5X.
  * `longest`: each batch is padded to its longest example; many shapes.
  * `buckets`: at most `max_shapes` encoder lengths, chosen for least padding.
    The order is cut into windows of up to 64 batches, but no more than one
    epoch; a window's examples are sorted into buckets and its batches emitted
    in a mixed order. An example thus stands at most one window from its place
    in the uniform shuffle, next to others of similar length.
  * `packed`: `batch_size` rows, each with several examples and segment ids; the
    number of examples varies. Windows as above; what does not fill a batch
    waits for the next window.

  Attributes:
    identity: changes whenever the sequence of batches does.
    packed: whether the batches have segment ids.
    shapes: every (B, T, S) that can occur, B on this host; None for `longest`.
  """

  def __init__(
    self,
    tokens: Tokens | Sequence[tuple[Tokens, float]],
    batch_size: int,
    seed: int,
    *,
    layout: Layout = TEXT_ONLY,
    batching: str = "buckets",
    max_shapes: int = 8,
    packed_size: tuple[int, int] | None = None,
    shard: tuple[int, int] = (0, 1),
    task_ids: Sequence[int] | None = None,
  ):
    """Plan the shapes.

    Args:
      tokens: one task's examples, or (examples, rate) pairs of a mixture.
      batch_size: rows of the global batch.
      seed: of the order.
      layout: settings of the virtual tokens.
      batching: `fixed`, `longest`, `buckets` or `packed`.
      max_shapes: most buckets.
      packed_size: encoder and decoder positions of packed rows, virtual tokens
        included; None chooses them from the lengths.
      shard: (index, count) of this host, which gets that part of the rows.
      task_ids: a number for each part of a mixture; batches then say whose
        their rows are (`task_ids` [B] int32), and a packed row has one task.

    Raises:
      ValueError: no examples, an unknown batching, or a batch size that the
        hosts cannot share.
    """
    super().__init__()
    stores = [(tokens, 1.0)] if not isinstance(tokens, Sequence) else tokens
    self._assembler, lengths = join([store for store, _ in stores], layout)
    sizes = [len(store.inputs) for store, _ in stores]
    self._task_ids = None
    if task_ids is not None:
      self._task_ids = np.repeat(np.asarray(task_ids, np.int32), sizes)
      lengths = dataclasses.replace(lengths, groups=self._task_ids)
    self._planner = planning.make_planner(
      batching, batch_size, lengths, max_shapes, packed_size
    )
    self._order = order.Order(sizes, [rate for _, rate in stores], seed)
    self.packed = batching == "packed"
    whole = min(sum(sizes) // batch_size, WINDOW_BATCHES)
    self._window = batch_size * max(1, whole)
    self._rows = shard_rows(batch_size, shard)
    description = {
      "parts": [(store.key, rate) for store, rate in stores],
      "layout": dataclasses.asdict(layout)
      | {"placement": layout.placement.described()},
      "sequence": [batch_size, seed, batching, self._planner.shapes],
    }
    if task_ids is not None:
      description["task_ids"] = list(task_ids)
    self.identity = _digest(description)

  @property
  def shapes(self) -> tuple[planning.Shape, ...] | None:
    """Every (B, T, S) that can occur on this host."""
    if self._planner.shapes is None:
      return None
    rows = self._rows.stop - self._rows.start
    return tuple((rows, T, S) for _, T, S in self._planner.shapes)

  def __iter__(self) -> "TrainIterator":
    return TrainIterator(self)

  def prefetch(self) -> grain.IterDataset[NumpyBatch]:
    """Make batches ahead in a thread; saved states stay exact."""
    return prefetch(self)

  def plan(
    self, window: int, carried: np.ndarray
  ) -> tuple[list[ExamplePlaces], np.ndarray]:
    """Plan one window: its batches, and the examples left for the next window.

    Args:
      window: index of the window, from 0.
      carried: indices of examples left over from the previous window.
    """
    fresh = self._order.read(window * self._window, self._window)
    examples = np.concatenate([carried, fresh])
    return self._planner(examples, window, len(carried))

  def assemble(self, places: ExamplePlaces) -> NumpyBatch:
    """Build this host's part of one planned batch."""
    of_host = places.take(self._rows)
    batch = self._assembler(of_host, self.packed)
    if self._task_ids is not None:
      batch["task_ids"] = np.zeros(of_host.shape[0], np.int32)
      batch["task_ids"][of_host.rows] = self._task_ids[of_host.examples]
    return batch


class TrainIterator(grain.DatasetIterator[NumpyBatch]):
  """The iterator of `TrainBatches`; its state is a window and a batch in it."""

  def __init__(self, batches: TrainBatches):
    super().__init__()
    self._batches = batches
    self._start(0, np.zeros(0, np.int64))

  def _start(self, window: int, carried: np.ndarray) -> None:
    self._window = window
    self._carried = carried
    self._next = 0
    self._plan: tuple[list[ExamplePlaces], np.ndarray] | None = None

  def __next__(self) -> NumpyBatch:
    if self._plan is None:
      self._plan = self._batches.plan(self._window, self._carried)
    # A window of few examples may not fill a single packed batch.
    while self._next >= len(self._plan[0]):
      self._start(self._window + 1, self._plan[1])
      self._plan = self._batches.plan(self._window, self._carried)
    places = self._plan[0][self._next]
    self._next += 1
    return self._batches.assemble(places)

  def get_state(self) -> dict[str, Any]:
    """Return the iterator's position, as JSON values."""
    return {
      "identity": self._batches.identity,
      "window": self._window,
      "batch": self._next,
      "carried": self._carried.tolist(),
    }

  def set_state(self, state: dict[str, Any]) -> None:
    """Continue at the position that `get_state` returned.

    Raises:
      ValueError: the state belongs to other data or another batching.
    """
    if damage := schema.faults(state, _STATE):
      raise ValueError(f"This iterator state is damaged: {damage[0]}")
    if state["identity"] != self._batches.identity:
      raise ValueError(
        "This iterator state belongs to other data: the task, its cache, "
        "TASK_FEATURE_LENGTHS, the placement, BATCH_SIZE, the seed or the "
        "batching have changed. Restore with the settings of the saved run."
      )
    self._start(state["window"], np.asarray(state["carried"], np.int64))
    self._next = state["batch"]


def shard_rows(batch_size: int, shard: tuple[int, int]) -> slice:
  """Return the rows of a global batch that one host reads.

  Args:
    batch_size: rows of the global batch.
    shard: (index, count) of the host.

  Raises:
    ValueError: the hosts cannot share the batch evenly.
  """
  index, count = shard
  if batch_size < 1 or batch_size % count or not 0 <= index < count:
    raise ValueError(
      f"A batch of {batch_size} rows cannot be shared by shard {index} of "
      f"{count}; BATCH_SIZE must be a multiple of the number of hosts."
    )
  rows = batch_size // count
  return slice(index * rows, (index + 1) * rows)


def join(
  stores: Sequence[Tokens], layout: Layout
) -> tuple[Assembler, planning.Lengths]:
  """Number the examples of several stores consecutively; find their lengths.

  Args:
    stores: the token stores.
    layout: settings of the virtual tokens.

  Returns:
    The assembler of these examples, and their lengths with virtual tokens.

  Raises:
    ValueError: no examples.
  """
  assembler = Assembler(
    concatenate([store.inputs for store in stores]),
    concatenate([store.targets for store in stores]),
    layout.placement,
    layout.vocab_rows,
  )
  encoder, decoder = assembler.encoder_lengths(), assembler.decoder_lengths()
  if not len(encoder):
    raise ValueError("No examples: the split is empty.")
  limits: list[int] = []
  around = 0 if assembler.has_soft.all() else layout.placement.encoder_length
  for name, lengths, extra in (
    ("inputs", encoder, around),
    ("targets", decoder, layout.placement.decoder_length),
  ):
    text_limits = [store.lengths[name] for store in stores]
    limits.append(
      int(lengths.max())
      if None in text_limits
      else extra + max(limit for limit in text_limits if limit is not None)
    )
  return assembler, planning.Lengths(encoder, decoder, limits[0], limits[1])


def prefetch(
  batches: grain.IterDataset[NumpyBatch],
) -> grain.IterDataset[NumpyBatch]:
  """Make a few batches ahead in a thread; saved states stay exact."""
  return grain.experimental.ThreadPrefetchIterDataset(
    batches, prefetch_buffer_size=_AHEAD
  )


def _digest(description: Mapping[str, Any]) -> str:
  text = json.dumps(description, sort_keys=True)
  return files.sha256(text.encode())[:16]
