# Everything starts from a fresh machine with Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard transforms/encoders/engines/amx/kernels/*.h transforms/encoders/engines/amx/kernels/*.cpp)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: venv demo test test-unit test-portable test-campaign test-image cases lint bench clean

venv: $(VENV)/.installed
demo: venv
	$(BIN)/vecbeam demo demo

# About 1,800 CPU seconds, shared by the workers; the aim is 20 minutes on two idle cores. A worker takes up to 3 GB, and
# one of them starts the Milvus server. A worker that crashes ends the run: xdist would give its test to the next one.
WORKERS ?= 2
test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n $(WORKERS) --max-worker-restart 0

# The pure core alone, under a minute: neither Milvus nor a model, and no lint.
test-unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/unit tests/test_house.py

# Runs on a job server with two workers in other file systems, on S3 and Milvus servers; then its figures.
test-portable: $(VENV)/.installed-test
	VECBEAM_PORTABLE=all $(BIN)/python -m pytest tests/portable
	$(BIN)/python tests/portable/figures.py

# The long campaigns of faults, with one table at the end (docs/faults.md): many hours, before a release. Stop it when you
# like: the same command continues with the seeds that are missing. MINUTES: at most so many of each campaign.
MINUTES ?= 100000
test-campaign: $(VENV)/.installed-test
	VECBEAM_STORES=all $(BIN)/python -m pytest tests/integration/test_store_servers.py
	$(BIN)/python tests/faults/campaign.py --minutes $(MINUTES)

# The images of deploy/images on a base that is made here, and a worker in one of them. Needs root, and
# `apt-get install buildah debootstrap crun`; about 15 minutes and 8 GB in IMAGE_FOLDER and in buildah's storage.
IMAGE_FOLDER ?= build/images
TORCH_INDEX ?= https://pypi.org/simple
test-image: $(VENV)/.installed-test
	$(BIN)/python tests/image/images.py $(IMAGE_FOLDER) --torch-index $(TORCH_INDEX)
	$(BIN)/python tests/image/worker_in_image.py $(IMAGE_FOLDER)

# The cases of ../shared/cases, each as its README says, in a table.
cases: $(VENV)/.installed-test
	$(BIN)/python tests/cases.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/word_list.py

# Needs the data folder; an idle machine, and about an hour. PEERS: scripts to compare with, ENVIRONMENTS: where theirs are
# (v_<peer>/bin/python), FIGURES: where JSON goes.
BENCH_DATA ?= ../shared/data
PEERS ?= ../shared/bench/peers
ENVIRONMENTS ?= $(PEERS)
FIGURES ?= benchmarks/figures
DEBIAN := $(BENCH_DATA)/debian
bench: $(VENV)/.installed-test
	$(PIP) matplotlib
	$(BIN)/python benchmarks/engine.py $(DEBIAN)/corpus_2000.jsonl --json $(FIGURES)/engine.json
	$(BIN)/python benchmarks/whole.py $(DEBIAN)/corpus_10000.jsonl --peers $(PEERS) --environments $(ENVIRONMENTS) --json $(FIGURES)/whole.json
	$(BIN)/python benchmarks/processes.py $(DEBIAN)/corpus_2000.jsonl
	$(BIN)/python benchmarks/load.py --json $(FIGURES)/load.json
	$(BIN)/python benchmarks/growth.py $(DEBIAN)/corpus.jsonl.gz --json $(FIGURES)/growth.json
	$(BIN)/python benchmarks/steps.py $(DEBIAN)/corpus_10000.jsonl
	$(BIN)/python benchmarks/sync.py $(DEBIAN)/corpus_10000.jsonl
	$(BIN)/python benchmarks/diff.py
	$(BIN)/python benchmarks/storage.py
	$(BIN)/python benchmarks/store_sync.py
	$(BIN)/python benchmarks/verify.py --json $(FIGURES)/verify.json
	$(BIN)/python benchmarks/cranfield.py $(BENCH_DATA)/cranfield
	$(BIN)/python benchmarks/images.py $(BENCH_DATA)/images --json $(FIGURES)/images.json
	$(BIN)/python benchmarks/pictures.py $(FIGURES) docs/pictures

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .import_linter_cache .grimp_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py constraints.txt $(KERNELS) | $(VENV)/bin/python
	$(PIP) --editable '.[all]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	touch $@
