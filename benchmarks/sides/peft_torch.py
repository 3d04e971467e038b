"""Prompt tuning as Hugging Face users do it: torch, transformers, PEFT."""

import os
import pathlib

import numpy as np
import peft
import torch
import transformers

from benchmarks.sides import work


class Side:
  """A loaded model, PEFT's prompt, torch's step.

  Args:
    folder: made by `making.write`.
    dtype: of weights and activations; PEFT keeps the prompt in float32.

  Attributes:
    device: what it computes on: a GPU, if torch finds one.
  """

  def __init__(self, folder: pathlib.Path, dtype: str = "float32"):
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # whatever OMP's are
    values = np.load(work.prompt_file(folder))
    load = transformers.T5ForConditionalGeneration.from_pretrained
    backbone = load(folder / work.MODEL, dtype=getattr(torch, dtype))
    has_gpu = torch.cuda.is_available()
    self.device = torch.cuda.get_device_name() if has_gpu else "cpu"
    self._device = torch.device("cuda" if has_gpu else "cpu")
    config = peft.PromptTuningConfig(
      task_type="SEQ_2_SEQ_LM",
      num_virtual_tokens=len(values),
      num_transformer_submodules=1,
    )
    self.model = peft.get_peft_model(backbone, config).eval().to(self._device)
    trained = [p for p in self.model.parameters() if p.requires_grad]
    with torch.no_grad():
      trained[0].copy_(torch.from_numpy(values))
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
