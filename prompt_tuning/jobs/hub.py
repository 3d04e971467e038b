"""Download hf://user/name from a hub to a local folder."""

import os
import pathlib
import re
from collections.abc import Sequence

SCHEME = "hf://"
_ADDRESS = re.compile(
  r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?P<folder>(?:/[\w.-]+)*)"
  r"(?:@(?P<revision>[\w./-]+))?"
)
# Files of exports and adapters. Nothing else of a repository is downloaded,
# such as the weights of a model. A star matches folders, too.
_PATTERNS = (
  *("*README.md", "*.npy", "*delta/*", "*peft/*", "*adapter_*"),
  *("delta.json", "delta.safetensors"),
)
_LOADED = ("*.npy", "delta.json", "adapter_config.json")
_IN_A_FOLDER = ("*.json", "*.safetensors", "*.npy", "*.md")


def local(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
  """Download the content of a hub's address; return other paths unchanged.

  Args:
    path: any path, or `hf://user/name`, or with a folder and a revision
      `hf://user/name/folder@main`. HF_ENDPOINT names a hub other than Hugging
      Face's.

  Returns:
    A local path. Content that was downloaded before is not downloaded again.

  Raises:
    ValueError: the address is malformed, huggingface_hub is not installed,
      there is no network, no such repository or no such folder in it, or it has
      no export and no adapter.
  """
  text = os.fspath(path)
  if not isinstance(text, str) or not text.startswith(SCHEME):
    return path
  match = _ADDRESS.fullmatch(text)
  if not match or ".." in text:
    raise ValueError(
      f"{text}: expected hf://user/name, or hf://user/name/folder@revision."
    )
  folder = match["folder"].strip("/")
  patterns = [f"{folder}/{p}" for p in _IN_A_FOLDER] if folder else _PATTERNS
  fetched = _fetched(text, match["repository"], match["revision"], patterns)
  root = pathlib.Path(fetched)
  if folder and not (root / folder).is_dir():
    raise ValueError(f"{text}: the repository has no folder {folder!r}.")
  if not any(next(root.rglob(name), None) for name in _LOADED):
    name = match["repository"]
    raise ValueError(
      f"{text} has no export and no adapter; hf:// downloads only these. If "
      f"it is a model, download it (`hf download {name} --local-dir DIR`), "
      "and give the path of that folder."
    )
  return root / folder


def _fetched(
  address: str,
  repository: str,
  revision: str | None,
  patterns: Sequence[str],
) -> str:
  try:
    import huggingface_hub
  except ImportError as error:
    raise ValueError(
      f"{address} needs huggingface_hub: pip install 'prompt-tuning[hub]'."
    ) from error
  try:
    return huggingface_hub.snapshot_download(
      repository,
      revision=revision,
      allow_patterns=list(patterns),
      endpoint=os.environ.get("HF_ENDPOINT"),
    )
  except Exception as error:  # of httpx, of the file system, of the hub
    why = " ".join(str(error).split())[:200].rstrip(".")
    raise ValueError(
      f"{address} cannot be fetched ({type(error).__name__}: {why}). Check "
      "the name and the network. If the repository is not public, log in with "
      "`hf auth login`."
    ) from error
