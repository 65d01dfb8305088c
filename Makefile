# The project's commands: `make quickstart` runs the main job, `make test` checks everything.
# Each Python is run to see whether it works: one of pyenv's names may stand for none.
USABLE := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
VERSION := import sys; print("%d.%d" % sys.version_info[:2])
PYTHONS := python3.13 python3.12 python3.11 python3
FIND := for name in $(PYTHONS); do $$name -c '$(USABLE)' >/dev/null 2>&1 && echo $$name && break; done
PYTHON ?= $(shell $(FIND))
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python scripts/install.py
# Those of the tests include the optional ones, so that nothing is skipped for want of a package.
EXTRAS := sim,language
TEST_EXTRAS := dev,sim,wandb,language,serve
# One thread a process: two test workers share two cores, and threads that fight slow both.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 WANDB_MODE=disabled

.PHONY: help same-python install install-tests test test-slow check demo language-policy quickstart clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/installed  ## make .venv with the package and its simulator

install-tests: $(VENV)/installed-tests  ## add what the tests need, and all extras

# An environment of another Python than the one asked for would be used without a word.
same-python:
	@if [ '$(origin PYTHON)' = 'command line' ] && [ -x $(BIN)/python ]; then \
	  asked=$$($(PYTHON) -c '$(VERSION)'); found=$$($(BIN)/python -c '$(VERSION)'); \
	  if [ "$$asked" != "$$found" ]; then \
	    echo "$(VENV) has Python $$found, asked for is $$asked: run make clean, or add VENV=.venv$$asked" >&2; exit 1; fi; fi

$(BIN)/pip:
	@set -e; python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
	  echo "no Python 3.11 to 3.13 with venv found (tried: $(PYTHONS)); install one, or use make PYTHON=/path/to/python3.13" >&2; exit 1; fi; \
	$$python -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 11) else f"Python >= 3.11 is needed, {sys.executable} is {v[0]}.{v[1]}; use make PYTHON=/path/to/python3.13")'; \
	$$python -c 'import sys; print("using Python", sys.version.split()[0], "from", sys.executable)'; \
	$$python -m venv $(VENV)

$(VENV)/installed: $(BIN)/pip pyproject.toml constraints.txt pybullet.txt | same-python
	@$(INSTALL) $(EXTRAS)
	@touch $@

$(VENV)/installed-tests: $(BIN)/pip pyproject.toml constraints.txt pybullet.txt | same-python
	@$(INSTALL) $(TEST_EXTRAS)
	@touch $@ $(VENV)/installed

check: install-tests  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check  ## all checks and tests, under 15 minutes on 2 cores
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup

test-slow: install-tests  ## the longer tests too; before a release
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadgroup -m ''

# From the environment, so that no shell reads a sentence as commands.
export SAY ?= push the blue block to the right
demo: install  ## tell a robot what to do and watch it try: make demo SAY='open the drawer'
	@$(BIN)/python scripts/demo.py "$$SAY"

language-policy: install  ## train the demo's policy from nothing, under 2 hours on two cores
	bash scripts/train_language_policy.sh

quickstart: install  ## the main job from nothing, on a laptop
	$(BIN)/python scripts/quickstart.py

clean:  ## remove what make made (data/, outputs/ and your checkpoints stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
