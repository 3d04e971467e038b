"""Pages as a real browser shows them: headless Chromium, on loopback.

One start of the browser looks at many pages and widths, each in a frame of a
page that measures them. Tests that need it carry `browser.needed`.
"""

import contextlib
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.parse

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
PHONE, DESKTOP = 360, 1200
_SECONDS = 120
_OUTER = "/outer-page-of-the-test.html"

needed = pytest.mark.skipif(
  FOUND is None,
  reason="no Chromium to look at pages with (apt install chromium)",
)

# What is wider than the frame and does not scroll by itself; what cannot be
# read; pictures that are not there.
_MEASURE = """
function rgb(text) { return (text.match(/[\\d.]+/g) || []).map(Number); }
function light(color) {
  const [r, g, b] = color.slice(0, 3).map(c => {
    c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(view, element) {
  for (let e = element; e; e = e.parentElement) {
    const color = rgb(view.getComputedStyle(e).backgroundColor);
    if (color.length === 3 || color[3] > 0.9) return color;
  }
  return [255, 255, 255];
}
function measure(frame) {
  const page = frame.contentDocument, view = frame.contentWindow;
  // Colours as they end, not half-way through a transition of the theme.
  const still = page.createElement('style');
  still.textContent = '* { transition: none !important }';
  page.head.append(still);
  page.querySelectorAll('details').forEach(d => { d.open = true; });
  let worst = {contrast: 99, text: ''}, words = 0;
  page.querySelectorAll('body *').forEach(e => {
    const own = [...e.childNodes].filter(n => n.nodeType === 3)
      .map(n => n.data.trim()).join(' ').trim();
    const style = view.getComputedStyle(e), box = e.getBoundingClientRect();
    if (!own || !box.width || style.visibility === 'hidden') return;
    words += own.split(/\\s+/).length;
    const svg = e.namespaceURI.endsWith('svg');
    const ink = light(rgb(svg ? style.fill : style.color));
    const paper = light(behind(view, e));
    const [a, b] = ink > paper ? [ink, paper] : [paper, ink];
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < worst.contrast) worst = {contrast, text: own.slice(0, 60)};
  });
  return {
    page: frame.dataset.page, width: frame.clientWidth, words,
    wide: page.documentElement.scrollWidth,
    charts: page.querySelectorAll('svg').length,
    missing: [...page.images].map(i => i.complete && !i.naturalWidth && i.src)
      .filter(src => src && src.startsWith(location.origin)),
    dark: light(behind(view, page.body)) < 0.2, worst,
  };
}
window.onload = () => {
  const found = [...document.querySelectorAll('iframe')].map(measure);
  document.getElementById('facts').textContent = JSON.stringify(found);
};
"""


def look(folder, pages, widths=(PHONE, DESKTOP), dark=False):
  """Show pages of a folder, and measure them.

  Args:
    folder: what is served.
    pages: names of HTML files in it.
    widths: of the frames, in pixels.
    dark: whether the reader prefers dark colours.

  Returns:
    For every page and width: `page`, `width`, `wide` (what it takes), `words`,
    `charts`, `missing` (pictures of the folder), `dark` (the background),
    `worst` (`contrast` and `text` of what is hardest to read).
  """
  absent = [page for page in pages if not (folder / page).is_file()]
  assert not absent, absent
  frames = "".join(
    f'<iframe data-page="{html.escape(page)}" '
    f'src="/{urllib.parse.quote(page)}" '
    f'style="width: {width}px; height: 900px; border: 0"></iframe>'
    for page in pages
    for width in widths
  )
  outer = (
    f'<!doctype html><pre id="facts"></pre>{frames}<script>{_MEASURE}</script>'
  )
  with _served(folder, outer) as address:
    shown = _dumped(f"{address}{_OUTER}", dark)
  match = re.search(r'<pre id="facts">(.*?)</pre>', shown, re.S)
  assert match, shown[:300]
  facts = json.loads(html.unescape(match[1]))
  assert len(facts) == len(pages) * len(widths)
  return facts


def check(facts, dark, contrast):
  """Insist that pages fit, can be read, and have their pictures."""
  for fact in facts:
    assert fact["words"] > 5, fact
    assert fact["wide"] <= fact["width"], fact
    assert not fact["missing"], fact
    assert fact["dark"] == dark, fact
    assert fact["worst"]["contrast"] >= contrast, fact


@contextlib.contextmanager
def _served(folder, outer):
  class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
      if self.path != _OUTER:
        super().do_GET()
        return
      data = outer.encode()
      self.send_response(200)
      self.send_header("Content-Type", "text/html; charset=utf-8")
      self.send_header("Content-Length", str(len(data)))
      self.end_headers()
      self.wfile.write(data)

    def log_message(self, *args):
      pass

  handler = functools.partial(Handler, directory=str(folder))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
      server.shutdown()
      thread.join()


def _dumped(address, dark):
  with tempfile.TemporaryDirectory() as profile:
    done = subprocess.run(
      [
        *(FOUND, "--headless", "--no-sandbox", "--disable-gpu"),
        *(f"--user-data-dir={profile}", "--hide-scrollbars"),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        *("--dump-dom", address),
      ],
      capture_output=True,
      text=True,
      timeout=_SECONDS,
      check=True,
    )
  return done.stdout
