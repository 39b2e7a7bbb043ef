# `make demo` and `make test` need a Debian-like machine with python3 >= 3.11; everything else goes into .venv.
# PYTHON=/path/to/python3.12 chooses another interpreter.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for candidate in python3.14 python3.13 python3.12 python3.11 python3; do \
	if $$candidate -c '$(SUITABLE)' 2>/dev/null; then echo $$candidate; break; fi; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?=
# As many processes run the tests at once; most tests wait more than they compute.
PYTEST_PROCESSES ?= 3
BENCH_ARGS ?=
SEED ?= 1
BROKER ?= redis
# The shell counts in a variable SECONDS too: what it passed on is not meant.
CHAOS_SECONDS := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),60)

.PHONY: help demo test test-kubernetes lint bench chaos clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## run the ETL example here and say where its result lies
	@$(BIN)/python docs/examples/demo.py

test: lint ## everything that must pass: lint, types, import rules, tests
	$(BIN)/python -m pytest -n $(PYTEST_PROCESSES) $(PYTEST_ARGS)

test-kubernetes: $(VENV)/.installed-dev ## KUBERNETES, against a real cluster that is built, started and ended; needs root
	scripts/servers.d/kubernetes/build.sh
	$(BIN)/python -m pytest tests/integration/kubernetes tests/unit/kubernetes $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev ## run the benchmarks
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

chaos: $(VENV)/.installed-dev ## kill everything, again and again: SECONDS=300 SEED=7 BROKER=redis|kafka|pulsar KEEP=folder
	$(BIN)/python -m tests.e2e.colony.chaos --seconds $(CHAOS_SECONDS) --seed $(SEED) --broker $(BROKER) $(if $(KEEP),--keep "$(KEEP)")

clean: ## remove the virtual environment, caches and the demo's folder
	rm -rf $(VENV) .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No suitable Python was found: Formicary needs python3 >= 3.11 with its venv module."; \
		echo "On Debian and Ubuntu: apt-get install python3 python3-venv; or: make PYTHON=/path/to/python3"; exit 2; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is too old or not a Python: Formicary needs python3 >= 3.11; try: make PYTHON=/path/to/python3"; exit 2; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) lacks the venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev]'
	@touch $(VENV)/.installed $@
