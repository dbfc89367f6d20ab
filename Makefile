# What a person needs: make demo | test | check | bench | docs | clean
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Installed before everything else, so that a CPU build from a find-links folder is taken where there is one.
# GPU users choose theirs: make demo TORCH='torch==2.13.0+cu130'
TORCH ?= torch==2.13.0
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check bench docs clean golden
.DEFAULT_GOAL := help

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Nacre needs Python 3.11 or newer: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.use: pyproject.toml | $(BIN)/python
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install -q '$(TORCH)'
	$(BIN)/pip install -q -e '.[all]'
	@touch $@

$(VENV)/.develop: pyproject.toml | $(VENV)/.use
	$(BIN)/pip install -q -e '.[dev]'
	@touch $@

demo: $(VENV)/.use  ## the embedded support desk: the whole life of a model, then every tier in one table, in minutes
	$(BIN)/nacre run recipes/intents.yaml
	$(BIN)/nacre trace intents/evaluate
	$(BIN)/nacre predict intents/tune "my parcel was supposed to be here last friday" "忘记密码了怎么登录"
	$(BIN)/nacre ladder desk

test: $(VENV)/.develop  ## every test, slow ones too
	$(BIN)/pytest -q -n 2 --dist loadfile

check: $(VENV)/.develop  ## ruff, mypy --strict, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.develop  ## every benchmark, in turns with its peers; appends to benchmarks/results/*.csv
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/shakespeare.py
	$(BIN)/python benchmarks/recipes.py banking77 minilm reviews entities poet python translate digits

docs: $(VENV)/.develop  ## regenerate the generated pages under docs/
	$(BIN)/python docs/generate.py

golden: $(VENV)/.develop  ## rewrite the golden files; read the diff before committing
	NACRE_GOLDEN=rewrite $(BIN)/pytest -q tests/golden

clean:  ## remove caches and the demo's store, not the environment
	rm -rf .nacre .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
