# `make test` is all of the tests, `make check` the whole of CI; every target
# makes its own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGE := $(VENV)/.package
STAMP := $(VENV)/.installed
SOURCES := prompt_tuning tests benchmarks experiments docs setup.py

.PHONY: check rest env quickstart format lint types imports docs look links \
	wheel paper test parity plan-test t5x bench bench-short clean

check: test rest

# What `check` has beside the tests.
rest: lint types imports docs look wheel paper parity plan-test bench-short

# What README's first command runs; it needs the package only.
quickstart: $(PACKAGE)
	$(BIN)/prompt-tuning compare --gin_file=runs/quickstart.gin

env: $(STAMP)

# Asked before there is an environment: a later `venv` would keep its Python.
OLD_PYTHON := import sys; sys.version_info >= (3, 11) or sys.exit( \
	"prompt-tuning needs Python 3.11 or newer, and this is Python %d.%d: name " \
	"a newer one, such as: make quickstart PYTHON=python3.11" \
	% sys.version_info[:2])

$(PACKAGE): setup.py constraints.txt
	@$(PYTHON) -c '$(OLD_PYTHON)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(STAMP): $(PACKAGE)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test,dev]'
	touch $@

format: env
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: env
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/codespell prompt_tuning tests gin docs benchmarks experiments *.md

types: env
	$(BIN)/mypy

imports: env
	$(BIN)/lint-imports

# Every cell of the paper's experiments, built but not run.
paper: env
	$(BIN)/python -m experiments.paper.dry_run

# The site, in build/site; a link that leads nowhere is an error. `look` shows
# its pages in a browser; `links` asks the pages of others, too.
SPHINX = $(BIN)/python -m sphinx -c docs -d build/doctrees .
docs: $(VENV)/.docs
	$(SPHINX) build/site -q -W --keep-going -b html

look: docs env
	$(BIN)/python -m pytest -rs tests/test_browser.py

links: $(VENV)/.docs
	$(SPHINX) build/links -q -b linkcheck

$(VENV)/.docs: $(PACKAGE)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# As a user has it: the wheel in an environment of its own, without a checkout,
# does what README says. What setuptools left in build/lib would be in the wheel,
# modules that are no more included.
WHEEL := $(CURDIR)/build/wheel
wheel: $(PACKAGE)
	rm -rf $(WHEEL) build/lib build/bdist.*
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(WHEEL) .
	rm -rf build/lib build/bdist.*
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/pip install --quiet -c constraints.txt $(WHEEL)/*.whl
	$(BIN)/python -m docs.generate.examples README.md $(WHEEL)
	cd $(WHEEL) && venv/bin/python example.py

test: env
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Through the compiler that users have; `test` uses a quick one.
parity: env
	TEST_WITH_FULL_COMPILER=1 $(BIN)/python -m pytest -n 2 -m parity \
		tests/models tests/train tests/tuners

# With the TPU compiler, which exists for Linux. It is kept beside the
# environment, not in it: JAX would look for a TPU in every process.
LIBTPU := $(CURDIR)/build/libtpu
ifeq ($(shell uname -s),Linux)
plan-test: env $(LIBTPU)/.installed
	PYTHONPATH=$(LIBTPU) $(BIN)/python -m pytest tests/plans/test_plan.py
else
plan-test:
	@echo "plan-test: skipped, there is no TPU compiler for this system"
endif

$(LIBTPU)/.installed: constraints.txt | env
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(LIBTPU) \
		-c constraints.txt libtpu
	touch $@

# T5X is on no registry: docs/t5x.md says how to install it. This is the Python
# of an environment that has it; in another, the tests say that they are skipped.
T5X_PYTHON ?= $(BIN)/python
t5x:
	$(T5X_PYTHON) -m pytest tests/t5x

# A part of `bench` with fewer turns and wider limits.
bench-short: env
	$(BIN)/python -m benchmarks.run --short --out build/benchmarks

# The tables of docs/performance.md; fails where a ratio is out of bounds.
# Sections that read SuperGLUE are left out, loudly, where the folder of its
# official files and T5's vocabulary is absent.
SHARED ?= ../shared/data
ROUNDS ?= 3
TFDS := build/tfds
bench: env
	$(BIN)/python -m benchmarks.layer_layout
	$(BIN)/python benchmarks/restore_memory.py
ifneq ($(wildcard $(SHARED)),)
	$(BIN)/prompt-tuning data prepare --source $(SHARED) \
		--tfds_data_dir $(TFDS) --only super_glue glue/sst2
	$(BIN)/python -m benchmarks.run --tfds_data_dir $(TFDS) \
		--vocabulary $(SHARED)/t5_vocab/sentencepiece.model --rounds $(ROUNDS)
else
	$(BIN)/python -m benchmarks.run --rounds $(ROUNDS)
endif

clean:
	rm -rf $(VENV) build dist *.egg-info
