# Everything a person does here. `make help` lists it; `make lint test` is what CI runs.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch is pinned and installed on its own, so that no range pulls another build in.
TORCH := torch==2.13.0
# Evaluation data for tests and benchmarks; both skip with a reason where it is not there.
ifneq ($(wildcard ../shared/data),)
export POINTSMAN_DATA ?= $(abspath ../shared/data)
endif
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pointsman needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: install
install: $(VENV)/installed ## create .venv and install everything

.PHONY: demo
demo: install ## run the main job on the bundled models, over HTTP
	$(BIN)/pointsman demo

.PHONY: serve
serve: install ## serve on http://127.0.0.1:8000 with the bundled models
	$(BIN)/pointsman serve

.PHONY: test
test: install ## run all tests
	$(BIN)/python -m pytest -m 'not full' $(ARGS)

.PHONY: test-full
test-full: install ## run all tests, the long ones too (fuzz, soak, load)
	$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: install ## ruff, mypy strict, the compose schema, kernels compiled ahead of time
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/python -m kernels.aot

.PHONY: format
format: install ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: install ## the figures of the README, each against its peer
	$(BIN)/python -m benchmarks

.PHONY: train
train: install ## train the bundled pair from nothing (about three hours on two cores)
	$(BIN)/python -m bundled_models reproduce

.PHONY: clean
clean: ## remove what building and testing left behind
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
