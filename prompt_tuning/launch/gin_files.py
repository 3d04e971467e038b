"""Where to look for gin files: in search paths, then in the package."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import prompt_tuning
from prompt_tuning.core import files, tree
from prompt_tuning.launch import original_files


def packaged_root() -> pathlib.Path:
  """Find the gin files that come with the package.

  Returns:
    `prompt_tuning/gin` of an installed package, `gin` beside `prompt_tuning` in
    a checkout.

  Raises:
    FileNotFoundError: neither exists.
  """
  package = pathlib.Path(prompt_tuning.__file__).parent
  for root in (package / "gin", package.parent / "gin"):
    if (root / "runs").is_dir():
      return root
  raise FileNotFoundError(
    f"No gin files in {package / 'gin'} or {package.parent / 'gin'}; the "
    "package is not completely installed. Install it again."
  )


@dataclasses.dataclass(frozen=True)
class SearchPath:
  """Finds gin files by name.

  Attributes:
    folders: searched in this order, before the package's own.
  """

  folders: Sequence[str] = (".",)

  @property
  def root(self) -> pathlib.Path:
    """The folder of the package's own files."""
    return packaged_root()

  def find(self, name: str) -> pathlib.Path:
    """Find a file.

    Args:
      name: absolute, relative to one of the folders, or the name of a file of
        the public code.

    Returns:
      The first that exists.

    Raises:
      FileNotFoundError: none exists; the message names the nearest known file.
    """
    ours = original_files.file_of(name, self.root)
    if ours is not None:
      return ours
    for folder in (*self.folders, str(self.root)):
      path = files.path(os.path.join(folder, os.path.expanduser(name)))
      if files.is_url(name):
        path = files.path(name)
      if path.is_file():
        return path
    folders = ", ".join([*map(str, self.folders), "the package's own files"])
    raise FileNotFoundError(
      f"No gin file {name!r}.{self._nearest(name)} Looked in: {folders}."
    )

  def is_packaged(self, path: pathlib.Path) -> bool:
    """Say whether a file is one of the package's own."""
    if files.is_url(path):
      return False
    return path.resolve().is_relative_to(self.root.resolve())

  def packaged(self) -> Iterator[tuple[str, pathlib.Path]]:
    """List the package's own files as (name, path), sorted."""
    for path in sorted(self.root.rglob("*.gin")):
      yield path.relative_to(self.root).as_posix(), path

  def _nearest(self, name: str) -> str:
    """Suggest a file of the same base name, else one of a similar name."""
    known = [known for known, _ in self.packaged()]
    for folder in self.folders:
      if files.is_url(name):
        break
      beside = files.path(os.path.join(folder, os.path.dirname(name)))
      known += [
        os.path.join(os.path.dirname(name), path.name)
        for path in sorted(beside.glob("*.gin"))
      ]
    base = os.path.basename(name)
    same = [k for k in known if os.path.basename(k) == base]
    if same:
      return f" Did you mean {same[0]!r}?"
    return tree.nearest(name, known) or tree.nearest(
      base, {os.path.basename(k) for k in known}
    )
