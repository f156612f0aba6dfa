# `make help` lists the targets. Everything runs in .venv, which the targets make for themselves.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
WORKERS ?= 2
SIZES ?= 1M,5M,10M,20M
PYTEST_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# One stamp per set of extras: the demo does not need the test tools.
DEMO := $(VENV)/.demo-installed
DEV := $(VENV)/.dev-installed
# What an installation is made from: the rest of the package is used where it lies.
BUILT := pyproject.toml constraints.txt hatch_build.py $(wildcard src/native/*)

.PHONY: help
help: ## List the targets
	@echo "Indelible. Start with 'make demo' or 'make test'."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Indelible needs Python 3.11 or newer. Name one: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: install its venv module"; exit 1; }

$(DEMO): $(BUILT) | $(BIN)/python
	@echo "Installing the demo into $(VENV) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(DEV): $(BUILT) | $(BIN)/python
	@echo "Installing the demo and the test tools into $(VENV) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(DEMO) $@

.PHONY: demo
demo: $(DEMO) ## Serve the backend with a minute of traffic (PORT=8000; ONCE=1 to stop after it)
	@$(BIN)/python -m backend.demo $(if $(PORT),--port $(PORT)) $(if $(ONCE),--once)

.PHONY: install
install: $(DEV) ## Make .venv with everything in it

.PHONY: test
test: $(DEV) layers ## Run the layer contracts and the tests (WORKERS=2, PYTEST_FLAGS=...)
	@$(BIN)/pytest -n $(WORKERS) -m "not soak" $(PYTEST_FLAGS)

.PHONY: soak
soak: $(DEV) ## Run the proofs in their long size (about an hour) and write the figures down
	@INDELIBLE_SOAK=1 $(BIN)/pytest tests/reliability --timeout 0 $(PYTEST_FLAGS)
	@$(BIN)/python -m bench --only log-call --json .artifacts/soak
	@$(BIN)/python -m scripts.reliability

.PHONY: bench
bench: $(DEV) ## Measure everything and write the report (hours; SIZES=1M,5M,10M,20M)
	@$(BIN)/python -m bench
	@$(BIN)/python -m bench.large --sizes $(SIZES)
	@$(MAKE) --no-print-directory bench-report

.PHONY: bench-quick
bench-quick: $(DEV) ## Measure in minutes and compare with the build's floors
	@$(BIN)/python -m bench --quick --check --json .artifacts/bench

.PHONY: bench-report
bench-report: $(DEV) ## Write the report and its plots from bench/results
	@$(BIN)/python -m bench report

.PHONY: profile
profile: $(DEV) ## Write down where the microseconds of a request and of a row go
	@PATH="$(BIN):$$PATH" $(BIN)/python -m bench.profiles

.PHONY: lint
lint: $(DEV) ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(DEV) ## Rewrite the code in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: $(DEV) ## Check the types
	@$(BIN)/mypy

.PHONY: layers
layers: $(DEV) ## Check that imports flow downward
	@$(BIN)/lint-imports --no-logo

.PHONY: docs
docs: $(DEV) ## Regenerate the reference pages that are made from the code
	@$(BIN)/python -m scripts.reference

.PHONY: wheel
wheel: $(DEV) ## Build the wheel into dist/
	@$(BIN)/hatchling build -t wheel

.PHONY: constraints
constraints: $(DEV) ## Pin what .venv holds now
	@$(BIN)/python -m scripts.constraints > constraints.new && mv constraints.new constraints.txt

.PHONY: clean
clean: ## Remove caches, builds and the demo's state
	@rm -rf .demo .artifacts .bench-* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache build dist
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## The same, and .venv
	@rm -rf $(VENV)
