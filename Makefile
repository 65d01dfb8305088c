# The project's commands: `make quickstart` runs the main job, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# Those of the tests include the optional ones, so that nothing is skipped for want of a package.
EXTRAS := sim
TEST_EXTRAS := dev,sim,wandb,language
# One thread a process: two test workers share two cores, and threads that fight slow both.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 WANDB_MODE=disabled

.PHONY: help install install-tests test test-slow check quickstart clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/installed  ## make .venv with the package and its simulator

install-tests: $(VENV)/installed-tests  ## add what the tests need, and all extras

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v else f"Python >= 3.10 is needed, {sys.executable} is {v[0]}.{v[1]}; use make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/pip pyproject.toml constraints.txt
	$(INSTALL) -e '.[$(EXTRAS)]'
	@touch $@

$(VENV)/installed-tests: $(BIN)/pip pyproject.toml constraints.txt
	$(INSTALL) -e '.[$(TEST_EXTRAS)]'
	@touch $@ $(VENV)/installed

check: install-tests  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check  ## all checks and tests, under 15 minutes on 2 cores
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup

test-slow: install-tests  ## the longer tests too; before a release
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup -m ''

quickstart: install  ## the main job from nothing, on a laptop
	$(BIN)/python scripts/quickstart.py

clean:  ## remove what make made (data/, outputs/ and your checkpoints stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
