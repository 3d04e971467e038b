"""Tuning as Hugging Face users do it: torch, transformers, PEFT."""

import os
import pathlib

import numpy as np
import peft
import torch
import transformers

from benchmarks.sides import work


class Side:
  """A loaded model, PEFT's prompt or adapter, torch's step.

  Args:
    folder: made by `making.write`.
    dtype: of weights and activations; PEFT keeps what trains in float32.
    method: prompt tuning, or one of `methods.METHODS`.

  Attributes:
    device: what it computes on: a GPU, if torch finds one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    dtype: str = "float32",
    method: str = work.PROMPT,
  ):
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # whatever OMP's are
    load = transformers.T5ForConditionalGeneration.from_pretrained
    backbone = load(folder / work.MODEL, dtype=getattr(torch, dtype))
    has_gpu = torch.cuda.is_available()
    self.device = torch.cuda.get_device_name() if has_gpu else "cpu"
    self._device = torch.device("cuda" if has_gpu else "cpu")
    make = {
      work.PROMPT: _prompt,
      "p_tuning": _p_tuning,
      "p_tuning_lstm": _p_tuning,
    }.get(method, _adapter)
    self.model = make(backbone, folder, method).eval().to(self._device)
    trained = [p for p in self.model.parameters() if p.requires_grad]
    self.optimizer = torch.optim.Adam(trained, work.RATE)

  def step(self, text: work.Batch) -> float:
    """Train on a batch; returns the loss per target token before it."""
    batch = self._tensors(text)
    labels = batch.pop("targets")
    labels = labels.masked_fill(labels == 0, -100)
    self.optimizer.zero_grad()
    loss = self.model(**batch, labels=labels).loss
    loss.backward()
    self.optimizer.step()
    return float(loss.detach())

  def decode(self, text: work.Batch, length: int) -> np.ndarray:
    """Decode greedily: [B, S] ids."""
    batch = self._tensors(text)
    batch.pop("targets")
    with torch.no_grad():
      ids = self.model.generate(
        **batch, max_new_tokens=length, do_sample=False, num_beams=1
      )
    return ids[:, 1:].cpu().numpy()

  def save(self, folder: pathlib.Path) -> None:
    """Write the adapter; PEFT keeps no optimizer, torch does."""
    self.model.save_pretrained(folder)
    torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

  def _tensors(self, text: work.Batch) -> dict[str, torch.Tensor]:
    inputs = torch.from_numpy(text["inputs"]).long().to(self._device)
    return {
      "input_ids": inputs,
      "attention_mask": (inputs != 0).long(),
      "targets": torch.from_numpy(text["targets"]).long().to(self._device),
    }


def _prompt(
  backbone: torch.nn.Module, folder: pathlib.Path, method: str
) -> torch.nn.Module:
  del method
  values = np.load(work.prompt_file(folder))
  config = peft.PromptTuningConfig(
    task_type="SEQ_2_SEQ_LM",
    num_virtual_tokens=len(values),
    num_transformer_submodules=1,
  )
  model = peft.get_peft_model(backbone, config)
  (prompt,) = (p for p in model.parameters() if p.requires_grad)
  with torch.no_grad():
    prompt.copy_(torch.from_numpy(values))
  return model


def _adapter(
  backbone: torch.nn.Module, folder: pathlib.Path, method: str
) -> torch.nn.Module:
  where = work.adapter_folder(folder, method)
  # PEFT loads nothing that makes virtual tokens, or a prefix, as what trains.
  is_prefix = peft.PeftConfig.from_pretrained(where).is_prompt_learning
  model = peft.PeftModel.from_pretrained(
    backbone, where, is_trainable=not is_prefix
  )
  if is_prefix:
    model.prompt_encoder.requires_grad_(True)
  return model


def _p_tuning(
  backbone: torch.nn.Module, folder: pathlib.Path, method: str
) -> torch.nn.Module:
  """Give PEFT's network the project's numbers; its adapters have none."""
  saved = peft.PeftConfig.from_pretrained(work.adapter_folder(folder, method))
  saved.inference_mode = False
  model = peft.get_peft_model(backbone, saved)
  encoder = model.prompt_encoder["default"]
  with np.load(work.values_file(folder, method)) as arrays:
    values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
  with torch.no_grad():
    encoder.embedding.weight.copy_(values["embedding"])
    linear = [m for m in encoder.mlp_head if isinstance(m, torch.nn.Linear)]
    for i, layer in enumerate(linear):
      layer.weight.copy_(values[f"dense_{i}/kernel"].T)
      layer.bias.copy_(values[f"dense_{i}/bias"])
    if hasattr(encoder, "lstm_head"):
      _copy_lstm(encoder.lstm_head, values)
  return model


def _copy_lstm(lstm: torch.nn.LSTM, values: dict[str, torch.Tensor]) -> None:
  """Copy flax's cells; of torch's two biases one stays zero."""
  ways = {"": "forward_rnn", "_reverse": "backward_rnn"}
  for layer in range(lstm.num_layers):
    for suffix, way in ways.items():
      cell = f"lstm_{layer}/{way}/cell"

      def gates(name: str, cell: str = cell) -> torch.Tensor:
        parts = [values[f"{cell}/{name.format(gate)}"] for gate in "ifgo"]
        return torch.cat([part.T if part.ndim > 1 else part for part in parts])

      at = f"l{layer}{suffix}"
      getattr(lstm, f"weight_ih_{at}").copy_(gates("i{}/kernel"))
      getattr(lstm, f"weight_hh_{at}").copy_(gates("h{}/kernel"))
      getattr(lstm, f"bias_hh_{at}").copy_(gates("h{}/bias"))
      zero = getattr(lstm, f"bias_ih_{at}")
      zero.zero_()
      zero.requires_grad_(False)
