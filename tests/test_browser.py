"""The browser finds what is wrong with a page; pages of the site are right."""

import pathlib

import pytest

from tests import browser

SITE = pathlib.Path(__file__).parents[1] / "build" / "site"
# Shown in the dark, too; in the light, all pages are.
PAGES = (
  *("README.html", "docs/index.html", "docs/own_data.html"),
  *("docs/catalogue.html", "docs/data.html", "docs/reference/settings.html"),
  *("notebooks/first_prompt.html", "experiments/methods/README.html"),
  *("notebooks/ten_methods.html", "notebooks/what_a_prompt_knows.html"),
  *("notebooks/scaling.html", "notebooks/superglue.html"),
)
# What the theme brings.
OTHERS = ("_static", "search.html", "genindex.html", "index.html")
AT_ONCE = 24  # pages of one start of the browser
WORDS = "one two three four five six seven"
WRONG = {
  "wide": f"<p style='width: 1900px'>{WORDS}</p>",
  "pale": f"<p style='color: #aaa'>{WORDS}</p>",
  "missing": f"<p>{WORDS}</p><img src='nowhere.png'>",
  "dark": f"<body style='background: black; color: white'>{WORDS}</body>",
  "empty": "<p>nothing</p>",
}


@browser.needed
def test_what_is_wrong_is_found(tmp_path):
  (tmp_path / "right.html").write_text(f"<!doctype html><p>{WORDS}</p>")
  for name, body in WRONG.items():
    (tmp_path / f"{name}.html").write_text(f"<!doctype html>{body}")
  names = [path.name for path in sorted(tmp_path.glob("*.html"))]
  facts = browser.look(tmp_path, names, widths=[browser.PHONE])
  for fact in facts:
    if fact["page"] == "right.html":
      browser.check([fact], dark=False, contrast=4.5)
      continue
    with pytest.raises(AssertionError):
      browser.check([fact], dark=False, contrast=4.5)


@browser.needed
@pytest.mark.skipif(
  not (SITE / "docs/index.html").is_file(),
  reason="no build/site: run `make docs` first",
)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_site_can_be_read_on_a_phone_and_a_desk(dark):
  found = (path.relative_to(SITE) for path in SITE.rglob("*.html"))
  pages = sorted(str(path) for path in found if path.parts[0] not in OTHERS)
  assert len(pages) > 60
  assert set(PAGES) <= set(pages)
  shown = PAGES if dark else pages
  for first in range(0, len(shown), AT_ONCE):
    facts = browser.look(SITE, shown[first : first + AT_ONCE], dark=dark)
    # Colours of code are the theme's.
    browser.check(facts, dark, contrast=3)
