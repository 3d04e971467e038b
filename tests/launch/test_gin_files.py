"""Gin files are found wherever a command is started."""

import pytest

from prompt_tuning.launch.gin_files import SearchPath, packaged_root


def test_the_packages_files_are_found_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = SearchPath().find("models/t5_1_1_base_prompt.gin")
  assert path == packaged_root() / "models" / "t5_1_1_base_prompt.gin"
  assert SearchPath().is_packaged(path)


def test_the_users_folders_come_first(tmp_path):
  for folder in ("a", "b"):
    (tmp_path / folder / "runs").mkdir(parents=True)
    (tmp_path / folder / "runs" / "paper.gin").touch()
  search = SearchPath((str(tmp_path / "a"), str(tmp_path / "b")))
  found = search.find("runs/paper.gin")
  assert found == tmp_path / "a" / "runs" / "paper.gin"
  assert not search.is_packaged(found)
  assert search.is_packaged(search.find("runs/finetune.gin"))


def test_absolute_paths_need_no_search(tmp_path):
  path = tmp_path / "mine.gin"
  path.touch()
  assert SearchPath(()).find(str(path)) == path


@pytest.mark.parametrize(
  ("name", "nearest"),
  [
    ("prompts/from_class_label.gin", "prompts/from_class_labels.gin"),
    ("model/t5_1_1_base.gin", "models/t5_1_1_base.gin"),
    # A checkout's layout.
    ("gin/runs/prompt_eval.gin", "runs/prompt_eval.gin"),
  ],
)
def test_a_missing_file_names_the_nearest(name, nearest):
  with pytest.raises(FileNotFoundError) as info:
    SearchPath(("/nowhere",)).find(name)
  assert f"No gin file {name!r}. Did you mean {nearest!r}?" in str(info.value)
  assert "/nowhere, the package's own files" in str(info.value)


def test_a_missing_file_of_the_user_names_the_nearest(tmp_path):
  (tmp_path / "my_task.gin").touch()
  with pytest.raises(FileNotFoundError, match=r"Did you mean 'my_task\.gin'"):
    SearchPath((str(tmp_path),)).find("my_tsak.gin")


def test_configs_never_become_a_package():
  """An __init__.py here would shadow the gin package."""
  others = [
    path.name
    for path in packaged_root().rglob("*")
    if path.is_file() and path.suffix != ".gin"
  ]
  assert others == []
