"""Write what OpenPrompt's verbalizers make of invented logits.

  python tests/golden/openprompt/generate.py CLONE

CLONE is a checkout of https://github.com/thunlp/OpenPrompt at f6fb080, whose
modules are run as they are; what they import and do not need here is stubbed.
"""

import importlib
import pathlib
import sys
import types

import numpy as np
import torch

OUTPUT = pathlib.Path(__file__).with_name("verbalizers.npz")
RULES_OUTPUT = OUTPUT.with_name("rules.npz")
# Words of three classes are their pieces; the first is the class's name.
WORDS = [["5", "6", "7 8"], ["9", "10 11 12"], ["13", "14", "15", "16 5"]]
V, ROWS, CONTEXTS = 24, 5, 7
# A piece for each of three masks, of four classes.
RULES = [["5", "9", "13"], ["5", "10", "14"], ["6", "9", "13"], ["6", "9", "5"]]


def stub(name: str, **attributes: object) -> None:
  """Put a module that does nothing in the place of one."""
  module = types.ModuleType(name)
  module.__path__ = []
  vars(module).update(attributes)
  sys.modules[name] = module


class Anything:
  """Stands for every class that is only named."""


class Tokenizer:
  """A word is the numbers of its pieces."""

  def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
    """Return them."""
    del add_special_tokens
    return list(map(int, text.split()))


def load(clone: str) -> types.ModuleType:
  """Import OpenPrompt's verbalizers."""
  root = pathlib.Path(clone) / "openprompt"
  stub("openprompt")
  sys.modules["openprompt"].__path__ = [str(root)]
  stub("openprompt.prompts")
  sys.modules["openprompt.prompts"].__path__ = [str(root / "prompts")]
  stub("openprompt.utils")
  logger = types.SimpleNamespace(info=print, warning=print)
  stub("openprompt.utils.logging", logger=logger)
  stub(
    "openprompt.utils.utils",
    signature=None,
    convert_cfg_to_dict=None,
  )
  stub("openprompt.data_utils", InputFeatures=Anything, InputExample=Anything)
  stub("openprompt.config", convert_cfg_to_dict=None)
  stub("openprompt.prompts.manual_template", ManualTemplate=Anything)
  stub("yacs")
  stub("yacs.config", CfgNode=Anything)
  stub("transformers", PreTrainedModel=Anything)
  for name, attributes in {
    "tokenization_utils": {"PreTrainedTokenizer": Anything},
    "utils": {},
    "utils.dummy_pt_objects": {"PreTrainedModel": Anything},
    "file_utils": {"ModelOutput": Anything},
    "modeling_utils": {"PreTrainedModel": Anything},
  }.items():
    stub(f"transformers.{name}", **attributes)
  base = importlib.import_module("openprompt.prompt_base")
  sys.modules["openprompt"].Verbalizer = base.Verbalizer
  prompts = sys.modules["openprompt.prompts"]
  one_word = importlib.import_module("openprompt.prompts.one2one_verbalizer")
  prompts.One2oneVerbalizer = one_word.One2oneVerbalizer
  prompts.PtuningTemplate = Anything
  return importlib.import_module("openprompt.prompts.knowledgeable_verbalizer")


def main() -> None:
  """Run them and write the file."""
  module = load(sys.argv[1])
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(ROWS, V)).astype(np.float32) * 2
  context = rng.normal(size=(CONTEXTS, V)).astype(np.float32) * 2
  arrays = {"logits": logits, "context": context}
  kinds = {
    "manual": module.ManualVerbalizer,
    "knowledge": module.KnowledgeableVerbalizer,
  }
  for kind, make in kinds.items():
    # No word is dropped, which would be frequency refinement.
    settings = {"candidate_frac": 0.0} if kind == "knowledge" else {}
    for handler in ("first", "mean"):
      for calibrated in (False, True):
        verbalizer = make(
          tokenizer=Tokenizer(),
          classes=["a", "b", "c"],
          multi_token_handler=handler,
          **settings,
        )
        verbalizer.label_words = [list(words) for words in WORDS]
        verbalizer.eval()
        if calibrated:
          verbalizer.register_calibrate_logits(
            torch.tensor(context).mean(dim=0)
          )
        with torch.no_grad():
          scores = verbalizer.process_logits(torch.tensor(logits.copy()))
        arrays[f"{kind}/{handler}/{calibrated}"] = scores.numpy()
  np.savez(OUTPUT, **arrays)
  np.savez(RULES_OUTPUT, **of_rules(rng))


def of_rules(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Run PTR's verbalizer as it scores, and as it trains."""
  module = importlib.import_module("openprompt.prompts.ptr_prompts")
  made = module.PTRVerbalizer(Tokenizer(), classes=["a", "b", "c", "d"])
  made.label_words = [list(words) for words in RULES]
  made.eval()
  logits = rng.normal(size=(ROWS, 3, V)).astype(np.float32) * 2
  arrays = {"logits": logits}
  for name, batch in {"scores": {}, "training": {"label": None}}.items():
    with torch.no_grad():
      arrays[name] = made.process_logits(torch.tensor(logits), batch).numpy()
  return arrays


if __name__ == "__main__":
  main()
