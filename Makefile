# Each target works alone on a fresh clone: what needs the environment makes it first.

PYTHON ?= python3
ARGS ?=
LOGDIR ?= outputs

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal
STAMP := $(VENV)/.installed
LEFTOVERS := build dist site .cache segtrain_cli.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all lint docs tensorboard clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@echo
	@echo '  PYTHON=python3.12 chooses the interpreter that .venv is made with (3.10 to 3.13).'

setup: $(STAMP)  ## make .venv and install segtrain into it; does nothing until pyproject.toml changes

# torch and torchvision first and together: only a pair from one index fits.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install torch torchvision
	$(BIN)/python -m pip install -e ".[dev,export]"
	@touch $@

train: $(STAMP)  ## train; make train ARGS="optim=adam train.epochs=20"
	$(BIN)/segtrain $(ARGS)

test: $(STAMP)  ## run the tests but the slow ones; make test ARGS="tests/test_losses.py -x"
	$(PYTEST) $(ARGS)

test-all: $(STAMP)  ## run all tests, the slow ones too
	$(PYTEST) -m "" $(ARGS)

lint: $(STAMP)  ## check style (ruff), types (mypy) and layers (import-linter)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)  ## build the documentation into site/, and check its links
	$(BIN)/python -m zensical build --strict

tensorboard: $(STAMP)  ## show the runs in a browser; LOGDIR=multirun for sweeps
	$(BIN)/tensorboard --logdir $(LOGDIR) --samples_per_plugin images=200

clean:  ## remove what builds and tools leave behind; keeps .venv, outputs and multirun
	rm -rf $(LEFTOVERS)
	find segtrain conf scripts tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
