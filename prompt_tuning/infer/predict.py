"""Predictions of a frozen model; a batch may mix any runs."""

import collections
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.core import bounds
from prompt_tuning.core.axes import row_ways
from prompt_tuning.core.placement import count_soft
from prompt_tuning.core.types import Params
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer import batching, inputs, programs
from prompt_tuning.infer.batching import Batching, BatchPlan
from prompt_tuning.infer.inputs import Inputs
from prompt_tuning.infer.runs import Runs
from prompt_tuning.models.t5 import cost
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.decoding import DecodingMethod, Greedy

logger = logging.getLogger(__name__)

# The targets of classification need at most eight pieces.
DECODE_LENGTH = 8

_IN_TEMPLATE = (
  "The virtual tokens were trained at the places of a task's template. These "
  "inputs have no such places, so the tokens stand before or around the text, "
  "where they were not trained. Ask for rows of a task whose template has "
  "soft tokens, such as that of the training: use `eval`, `infer` with "
  "MIXTURE_OR_TASK_NAME, or `Model.evaluate`."
)

# Beam search gives an empty beam the score -1e7.
_NOTHING = -1e6


class Prediction(NamedTuple):
  """The texts decoded for one input, best first.

  Attributes:
    texts: one text per decode; one unless the method returns more. Beam search
      returns finished sequences; if none is finished, unfinished ones.
    scores: summed log-likelihood of each text (natural logarithm); in beam
      search, divided by the length penalty.
  """

  texts: tuple[str, ...]
  scores: tuple[float, ...]

  @property
  def text(self) -> str:
    """The best text."""
    return self.texts[0]

  @property
  def score(self) -> float:
    """The best text's score."""
    return self.scores[0]


@dataclasses.dataclass(frozen=True)
class Predictor:
  """A frozen model and the runs that it can predict with.

  Programs are compiled once per shape and shared by all predictors of a model:
  `dataclasses.replace` with other runs or parameters costs nothing.

  Attributes:
    config: configuration of the model.
    params: its frozen parameters.
    vocabulary: vocabulary of the model.
    runs: deltas and placements; by default the model without tuning.
    input_length: maximum number of tokens of an input text, with EOS and
      without virtual tokens; None for no limit.
    batching: rules for the shapes of batches.
    mesh: mesh of the parameters and batches; None for one device.

  Raises:
    ValueError: the mesh's devices cannot share a batch evenly.
  """

  config: T5Config
  params: Params
  vocabulary: Vocabulary
  runs: Runs = dataclasses.field(default_factory=Runs)
  input_length: int | None = 512
  batching: Batching = dataclasses.field(default_factory=Batching)
  mesh: Mesh | None = None
  # Hashes of the virtual tokens that a warning was about; `replace` keeps it.
  _warned_of: set[int] = dataclasses.field(
    default_factory=set, repr=False, compare=False
  )

  def __post_init__(self) -> None:
    self.batching.insist_multiple(self._ways)
    name = "TASK_FEATURE_LENGTHS['inputs'] (input_length)"
    bounds.insist_whole(name, self.input_length, 1, optional=True)

  @property
  def _ways(self) -> int:
    return row_ways(self.mesh)

  def encode(
    self, texts: Sequence[str], run_ids: int | Sequence[int] = 0
  ) -> Inputs:
    """Turn texts into inputs, see `inputs.encode`.

    Args:
      texts: n texts.
      run_ids: one run for all texts, or the run of each.
    """
    return inputs.encode(self.vocabulary, texts, run_ids, self.input_length)

  def predict(
    self,
    asked: Inputs,
    *,
    length: int = DECODE_LENGTH,
    method: DecodingMethod | None = None,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
  ) -> list[Prediction]:
    """Decode an answer to every input.

    Args:
      asked: n inputs, of any runs.
      length: maximum number of tokens to decode, with EOS.
      method: `Greedy()` by default, `Sampling(...)` or `BeamSearch(...)`.
      seed: seed for sampling.
      numbers: [n] integers. A sample depends on the seed and on its input's
        number, not on the batch. By default, the index of the input.

    Returns:
      n predictions, in the order of the inputs.

    Raises:
      ValueError: an unknown run, or a length below 1.
    """
    if length < 1:
      raise ValueError(f"Cannot decode {length} tokens; raise the length to 1.")
    method = Greedy() if method is None else method
    program = programs.decoder(self.config, method, length, self.mesh)
    which = np.arange(len(asked)) if numbers is None else np.asarray(numbers)

    def features(plan: BatchPlan) -> dict[str, np.ndarray]:
      numbers = which[plan.filled].astype(np.int32)
      return {"numbers": numbers, "seed": np.asarray(seed, np.int32)}

    decoded: dict[int, Prediction] = {}
    for plan, result in self.map_batches(program, asked, features):
      for row, example in enumerate(plan.examples.tolist()):
        scores = result.scores[row]
        # Such beams stand last.
        count = max(1, int(np.sum(scores > _NOTHING)))
        tokens = result.tokens[row, :count]
        run = int(asked.run_ids[example])
        texts = (self._text(_trim(ids), run) for ids in tokens)
        decoded[example] = Prediction(
          tuple(texts), tuple(scores[:count].tolist())
        )
    return [decoded[example] for example in range(len(asked))]

  def _text(self, ids: list[int], run: int) -> str:
    """Convert ids to text; a learned output row ends it, and has a text."""
    word = ids[-1] - self.config.vocab_size if ids else -1
    answers = self.runs.answers_of(run)
    if not 0 <= word < len(answers):
      return self.vocabulary.decode(ids)
    before = self.vocabulary.decode(ids[:-1])
    return " ".join(filter(None, (before, answers[word])))

  def map_batches(
    self,
    program: programs.InferProgram,
    asked: Inputs,
    features: Callable[[BatchPlan], dict[str, np.ndarray]],
  ) -> Iterator[tuple[BatchPlan, Any]]:
    """Run a program over all inputs in batches.

    Warns once of every run whose virtual tokens a template placed in training,
    while its inputs do not mark places for them.

    Args:
      program: see `programs`.
      asked: n inputs.
      features: other features of a batch, besides its inputs and runs.

    Yields:
      Every batch's plan and the program's results, as numpy arrays. The next
      batch is already running by then.

    Raises:
      ValueError: an unknown run.
    """
    self._check_runs(asked)
    self._warn_of_places(asked)
    placements, vocab_rows = self.runs.placements, self.config.vocab_size
    starts = batching.decoder_starts(placements, vocab_rows)
    lengths = batching.encoder_lengths(asked, placements)
    under_way: collections.deque[tuple[BatchPlan, Any]] = collections.deque()
    batches = self.batching.plan(lengths, self._ways)
    if self.input_length is None and batches:
      longest = max(batches, key=lambda plan: plan.length)
      rows = longest.rows // self._ways
      cost.warn_of_length(self.config, rows, longest.length)
    for plan in batches:
      tokens = batching.encoder_tokens(asked, plan, placements, vocab_rows)
      run_ids = asked.run_ids[plan.filled].astype(np.int32)
      batch = {"encoder_input_tokens": tokens, **features(plan)}
      if len(self.runs) > 1:
        batch["run_ids"] = run_ids
      if starts is not None:
        batch["decoder_prefix_tokens"] = starts[run_ids]
      placed = programs.put(batch, self.mesh)
      under_way.append((plan, program(self.params, self.runs.delta, placed)))
      if len(under_way) > 1:
        yield _fetch(*under_way.popleft())
    while under_way:
      yield _fetch(*under_way.popleft())

  def _check_runs(self, asked: Inputs) -> None:
    unknown = set(np.unique(asked.run_ids).tolist()) - set(
      range(len(self.runs))
    )
    if unknown:
      raise ValueError(
        f"Inputs ask for runs {sorted(unknown)}; there are {len(self.runs)}, "
        "counted from 0."
      )

  def _warn_of_places(self, asked: Inputs) -> None:
    """Warn of runs whose virtual tokens stand where they were not trained."""
    misplaced = {
      run
      for row, run in enumerate(asked.run_ids.tolist())
      if self.runs.is_in_template(run)
      and self.runs.placements[run].encoder_length
      and not count_soft(asked.rows[row])
    }
    learned = set(map(self._hash_of_virtual_tokens, misplaced))
    if not learned <= self._warned_of:
      logger.warning(_IN_TEMPLATE)
      self._warned_of.update(learned)

  def _hash_of_virtual_tokens(self, run: int) -> int:
    """Identify what a run learned, in whatever bank it stands."""
    rows = self.runs.placements[run].encoder_rows
    virtual = np.asarray(self.runs.delta.virtual)
    return hash(virtual[run, list(rows)].tobytes())


def _fetch(plan: BatchPlan, result: Any) -> tuple[BatchPlan, Any]:
  return plan, jax.device_get(result)


def _trim(ids: np.ndarray) -> list[int]:
  """Remove the padding after a decoded sequence."""
  return np.trim_zeros(ids, "b").tolist()
