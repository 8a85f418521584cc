# Everything starts from a fresh machine with Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: venv demo test lint bench clean

venv: $(VENV)/.installed
demo: venv
	$(BIN)/vecbeam demo demo

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Needs the data folder; an idle machine, and about half an hour.
BENCH_DATA ?= ../shared/data
bench: venv
	$(BIN)/python benchmarks/cranfield.py $(BENCH_DATA)/cranfield
	$(BIN)/python benchmarks/steps.py $(BENCH_DATA)/debian/corpus_10000.jsonl
	$(BIN)/python benchmarks/memory.py $(BENCH_DATA)/debian/corpus.jsonl.gz --rows 4000 63666 --precision bfloat16

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[all]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	touch $@
