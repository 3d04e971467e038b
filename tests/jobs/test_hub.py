"""An export on a hub: uploaded as it is, loaded by its address.

The hub is a stand-in on loopback that answers as Hugging Face's does; the
client is the real one.
"""

import hashlib
import http.server
import json
import pathlib
import sys
import threading

import numpy as np
import pytest
import yaml

import prompt_tuning
from prompt_tuning.checkpoints import peft
from prompt_tuning.jobs import card, export, hub, load
from prompt_tuning.jobs.export import Origin
from prompt_tuning.launch import main
from prompt_tuning.tuners.prompt import Prompt

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)
COMMIT = "0123456789" * 4
ORIGIN = Origin(
  Prompt(4, encoder_length=3),
  task="skill_last",
  step=150,
  backbone="abc",
  base_model="google/t5-v1_1-small",
  scores={"skill_last/accuracy": 99.21875},
)


@pytest.fixture
def exported(tmp_path):
  runs = prompt_tuning.from_vectors(VECTORS)
  done = export.export(runs, 0, tmp_path / "out", ORIGIN, licence="cc-by-4.0")
  assert done.notes == ()
  return tmp_path / "out"


class Hub(http.server.BaseHTTPRequestHandler):
  """One repository, `somebody/last`, at one commit."""

  root: pathlib.Path
  fetched: list[str]

  def do_HEAD(self):
    self._answer(body=False)

  def do_GET(self):
    self._answer(body=True)

  def log_message(self, *args):
    pass

  def _answer(self, body):
    path = self.path.partition("?")[0]
    api, files = "/api/models/somebody/last", "/somebody/last/resolve/"
    headers = {}
    if path == f"{api}/revision/main":
      data = json.dumps({"id": "somebody/last", "sha": COMMIT}).encode()
    elif path == f"{api}/tree/{COMMIT}":
      data = json.dumps(self._tree()).encode()
    elif path.startswith(f"{files}{COMMIT}/"):
      name = path.removeprefix(f"{files}{COMMIT}/")
      data = (self.root / name).read_bytes()
      self.fetched += [name] * body
      headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(data)}"'}
    else:
      self.send_response(404)
      self.send_header("X-Error-Code", "RepoNotFound")
      self.send_header("Content-Length", "0")
      self.end_headers()
      return
    self.send_response(200)
    headers |= {"Content-Length": str(len(data))}
    headers.setdefault("Content-Type", "application/json")
    for name, value in headers.items():
      self.send_header(name, value)
    self.end_headers()
    if body:
      self.wfile.write(data)

  def _tree(self):
    return [
      {
        "type": "file",
        "path": path.relative_to(self.root).as_posix(),
        "size": path.stat().st_size,
        "oid": _digest(path.read_bytes()),
      }
      for path in sorted(self.root.rglob("*"))
      if path.is_file()
    ]


def _digest(data):
  return hashlib.sha1(data).hexdigest()


@pytest.fixture
def server(exported, tmp_path, monkeypatch):
  (exported / "evil.bin").write_bytes(b"a pickle")
  handler = type("Handler", (Hub,), {"root": exported, "fetched": []})
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    monkeypatch.setenv(
      "HF_ENDPOINT", f"http://127.0.0.1:{running.server_address[1]}"
    )
    monkeypatch.setattr(
      "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache")
    )
    yield handler
    running.shutdown()
    thread.join()


def test_a_card_has_metadata_a_hub_reads(exported):
  text = (exported / "README.md").read_text()
  _, metadata, body = text.split("---\n", 2)
  read = yaml.safe_load(metadata)
  assert read["library_name"] == "prompt-tuning"
  assert read["license"] == "cc-by-4.0"
  assert read["base_model"] == "google/t5-v1_1-small"
  (index,) = read["model-index"]
  (result,) = index["results"]
  assert result["dataset"]["name"] == "skill_last"
  assert result["metrics"] == [
    {"type": "skill_last/accuracy", "value": 99.2188}
  ]
  assert "| base model | google/t5-v1_1-small |" in body
  assert "| trained parameters | 12 |" in body
  assert 'model.with_tuned({"it": "THIS FOLDER, or hf://user/name"})' in body
  for name in ("delta", "prompt.npy", "peft"):
    assert f"- `{name}`: " in body
    assert (exported / name).exists()


def test_the_index_of_a_card_has_metrics_only(tmp_path):
  """How often a class was predicted is no metric of the task."""
  scores = {
    f"t/{way}{name}": 50.0
    for way in ("", "rank/")
    for name in (
      "legal_label_rate",
      "gold_share/a",
      "predicted_share/a",
      "accuracy",
    )
  }
  origin = ORIGIN._replace(task="t", scores=scores)
  export.export(prompt_tuning.from_vectors(VECTORS), 0, tmp_path, origin)
  text = (tmp_path / "README.md").read_text()
  _, metadata, body = text.split("---\n", 2)
  (result,) = yaml.safe_load(metadata)["model-index"][0]["results"]
  kinds = [metric["type"] for metric in result["metrics"]]
  assert kinds == ["t/accuracy", "t/rank/accuracy"]
  scored, labels = body.split("| labels there, in percent |")
  assert "| t/accuracy | 50 |" in scored
  assert "share" not in scored
  assert "| t/rank/predicted_share/a | 50 |" in labels
  # Statistics alone make no index.
  only = ORIGIN._replace(scores={"t/legal_label_rate": 50.0})
  export.export(prompt_tuning.from_vectors(VECTORS), 0, tmp_path, only)
  assert "model-index" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
  ("fingerprint", "loaded"),
  [
    ("793ed943242ef0fa", '"embedded:ladder_2"'),
    ("abc", '"CHECKPOINT", "sentencepiece.model"'),
  ],
)
def test_cards_load_a_model_of_the_package_by_its_name(
  fingerprint, loaded, tmp_path
):
  """Both cards: that for hubs, and that of the arrays."""
  origin = ORIGIN._replace(backbone=fingerprint, base_model=None)
  export.export(prompt_tuning.from_vectors(VECTORS), 0, tmp_path, origin)
  for folder in (tmp_path, tmp_path / "delta"):
    body = (folder / "README.md").read_text()
    assert f"model = pt.load_model({loaded})" in body
  named = (
    "base model | embedded:ladder_2" in (tmp_path / "README.md").read_text()
  )
  assert named == (fingerprint != "abc")


def test_a_card_asks_for_rows_where_a_template_places_the_tokens(
  exported, tmp_path
):
  origin = ORIGIN._replace(soft_tokens=True)
  runs = prompt_tuning.from_vectors(VECTORS)
  export.export(runs, 0, tmp_path / "first", origin)
  export.export_all(str(tmp_path / "first"), str(tmp_path / "again"))
  for name in ("first", "again"):
    body = (tmp_path / name / "README.md").read_text()
    assert 'model.evaluate("skill_last", prompt="it", by="rank")' in body
    assert "model.predict([" not in body
    noted = [line for line in body.splitlines() if card.IN_TEMPLATE in line]
    starts = [line.partition(":")[0] for line in noted]
    assert starts == ["Note", "- `prompt.npy`", "- `peft`"]
  other = (exported / "README.md").read_text()
  assert "template" not in other
  assert "model.predict([" in other


def test_a_folder_with_a_readme_of_somebody_elses_keeps_it(tmp_path):
  (tmp_path / "README.md").write_text("# Mine")
  runs = prompt_tuning.from_vectors(VECTORS)
  done = export.export(runs, 0, tmp_path, ORIGIN)
  assert "it stays" in done.notes[-1]
  assert (tmp_path / "README.md").read_text() == "# Mine"
  (tmp_path / "README.md").unlink()
  for _ in range(2):  # a card is replaced by the next
    assert not export.export(runs, 0, tmp_path, ORIGIN).notes
  card = (tmp_path / "README.md").read_text()
  assert "library_name: prompt-tuning" in card
  licensed = card.replace('license: "unknown"', 'license: "mit"')
  (tmp_path / "README.md").write_text(licensed)
  assert "it stays" in export.export(runs, 0, tmp_path, ORIGIN).notes[-1]
  assert (tmp_path / "README.md").read_text() == licensed != card


def test_scores_and_licence_survive_a_second_export(exported, tmp_path):
  export.export_all(str(exported), str(tmp_path / "again"))
  cards = [folder / "README.md" for folder in (exported, tmp_path / "again")]
  assert cards[1].read_text() == cards[0].read_text()


@pytest.mark.parametrize(
  ("scale", "given", "licence"),
  [
    (1, None, "cc-by-4.0"),  # the same run again
    (1, "mit", "mit"),
    (2, None, "unknown"),  # another one's licence says nothing of it
  ],
)
def test_a_folder_keeps_its_licence(scale, given, licence, exported):
  runs = prompt_tuning.from_vectors(scale * VECTORS)
  export.export(runs, 0, exported, ORIGIN, licence=given)
  metadata = (exported / "README.md").read_text().split("---\n")[1]
  assert yaml.safe_load(metadata)["license"] == licence


def test_what_a_stranger_calls_a_method_is_text_in_a_card():
  facts = card.Facts('a "b"\nlicense: none', {}, None, None, None, None, 1, {})
  metadata = yaml.safe_load(card.text(facts, ()).split("---\n")[1])
  assert metadata["license"] == "unknown"


def test_an_address_is_a_folder(server):
  runs = prompt_tuning.load("hf://somebody/last")
  np.testing.assert_array_equal(load.vectors(runs, 0)["encoder"], VECTORS)
  assert "delta/delta.safetensors" in server.fetched
  assert "evil.bin" not in server.fetched
  count = len(server.fetched)
  inside = hub.local(f"hf://somebody/last/peft@{COMMIT}")
  assert len(server.fetched) == count  # nothing twice
  assert peft.is_peft(str(inside))


@pytest.mark.usefixtures("server")
def test_commands_take_an_address(exported, tmp_path, capsys):
  address = "hf://somebody/last"
  assert main.main(["inspect", address]) == 0
  assert capsys.readouterr().out.startswith(f"{address}: an export, step 150")
  assert main.main(["diff", address, str(exported)]) == 0
  npy = tmp_path / "last.npy"
  assert main.main(["convert", address, str(npy), "--to", "npy"]) == 0
  np.testing.assert_array_equal(np.load(npy), VECTORS)


def test_a_model_on_a_hub_is_not_fetched(server, exported, capsys):
  for path in sorted(exported.rglob("*"), reverse=True):
    path.rmdir() if path.is_dir() else path.unlink()
  (exported / "model.safetensors").write_bytes(b"weights")
  assert main.main(["inspect", "hf://somebody/last"]) == 2
  line = capsys.readouterr().err.splitlines()[-1]  # after the client's own
  assert "`hf download somebody/last --local-dir DIR`" in line
  assert not server.fetched


@pytest.mark.parametrize(
  ("address", "message"),
  [
    ("hf://somebody", "expected hf://user/name"),
    ("hf://somebody/last/../x", "expected hf://user/name"),
    ("hf://somebody/last/nowhere", "no folder 'nowhere'"),
    ("hf://somebody/else", "Check the name and the network"),
  ],
)
def test_addresses_that_lead_nowhere(server, address, message):
  with pytest.raises(ValueError, match=message) as caught:
    prompt_tuning.load(address)
  assert "\n" not in str(caught.value)


def test_without_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(ValueError, match=r"pip install 'prompt-tuning\[hub\]'"):
    prompt_tuning.load("hf://somebody/last")


def test_without_a_network(monkeypatch, tmp_path):
  monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
  monkeypatch.setattr(
    "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty")
  )
  with pytest.raises(ValueError, match="Check the name and the network"):
    prompt_tuning.load("hf://somebody/last")
