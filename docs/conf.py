"""Sphinx builds the site with this: `make docs`.

The source folder is the checkout, so that a relative link in a document means
the same file on the site and in the repository.
"""

import os
import pathlib
import re
import sys
import warnings

from docutils import nodes
from docutils.utils.math import latex2mathml
from pygments.lexers.python import PythonLexer

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tools of Sphinx warn of each other; what Sphinx itself says are errors.
warnings.filterwarnings("ignore", category=DeprecationWarning)

from docs.generate import api, notebooks, pages  # noqa: E402
from prompt_tuning import __version__  # noqa: E402
from tests import quick_compiler  # noqa: E402

# Read by the notebooks, which run in processes of their own.
os.environ.setdefault("XLA_FLAGS", " ".join(quick_compiler.FLAGS))

project = "prompt-tuning"
author = "the authors of prompt-tuning"
copyright = "the authors of prompt-tuning; Apache-2.0"
release = __version__
extensions = ["myst_nb"]
root_doc = "docs/index"
include_patterns = [
  "docs/*.md",
  "docs/reference/*.md",
  "README.md",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "experiments/*.md",
  "experiments/**/*.md",
  "notebooks/*.md",
]
# Folders that need not be walked through.
exclude_patterns = [
  *("build", "dist", "runs", "prompt_tuning", "tests", "benchmarks", "gin"),
  *(".venv*", ".git", "**/.*", "**/__pycache__", "*.egg-info"),
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as on GitHub
# Notebooks run, each in a folder of its own; what fails in one is an error.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_output_stderr = "remove"
nb_render_markdown_format = "gfm"  # tables among what notebooks show
# Tables of experiments are reached from their pages.
suppress_warnings = ["toc.not_included"]

smartquotes = False  # `--flag` stays
html_theme = "sphinx_book_theme"
html_title = f"prompt-tuning {release}"
html_theme_options = {
  "show_navbar_depth": 1,
  "use_download_button": False,
  "use_fullscreen_button": False,
  "home_page_in_toc": True,
  "navbar_persistent": [],  # the search stands in the side bar
}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["static/index.html"]
html_copy_source = False
html_show_sourcelink = False


def _write_pages(app) -> None:
  del app
  pages.write()


def _without_folders(app, docname, source) -> None:
  """Leave out links to folders: the site has no lists of files."""
  folder = pathlib.Path(app.env.doc2path(docname)).parent

  def shown(match: re.Match[str]) -> str:
    is_folder = (folder / match[2]).is_dir()
    return match[1] if is_folder else match[0]

  source[0] = re.sub(r"\[([^\]]*)\]\(([^)#:\s]+)\)", shown, source[0])


def _add_settings(app, docname, source) -> None:
  """Put a method's table where the catalogue asks for it."""
  del app
  if docname == "docs/catalogue":
    source[0] = re.sub(
      r"<!-- settings: (\w+) -->",
      lambda match: api.settings(api.methods()[match[1]]),
      source[0],
    )


def _shorten(app, docname, source) -> None:
  """Let a notebook run with its shorter settings."""
  del app
  folder, _, name = docname.rpartition("/")
  if folder == "notebooks":
    settings = notebooks.SHORT.get(name, {})
    source[0] = notebooks.with_settings(source[0], settings)


def _inline_math(self, node) -> None:
  self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=False))
  raise nodes.SkipNode


def _block_math(self, node) -> None:
  self.body.append('<div class="math">')
  self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=True))
  self.body.append("</div>")
  raise nodes.SkipNode


def setup(app) -> None:
  """Write the generated pages first; formulas are MathML, without scripts."""
  app.connect("builder-inited", _write_pages)
  app.connect("source-read", _without_folders)
  app.connect("source-read", _add_settings)
  app.connect("source-read", _shorten)
  app.add_lexer("gin", PythonLexer)
  app.add_html_math_renderer(
    "mathml", (_inline_math, None), (_block_math, None)
  )


html_math_renderer = "mathml"
