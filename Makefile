# Every target makes .venv and installs what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
# CPU builds of the tested versions unless the index gives CUDA ones; see constraints.txt.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart test lint notebooks clean help

help:
	@echo "make quickstart   find emotion in the default model, steer it, write $(RUN)/report.html"
	@echo "make test         lint and all tests"
	@echo "make lint         ruff and pyright"
	@echo "make notebooks    run the notebooks, outputs in build/notebooks"
	@echo "make clean        remove environments and caches of this folder"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) -e ".[dev]"
	@touch $@

quickstart: $(VENV)/.core
	$(BIN)/affectlens run --out $(RUN)
	$(BIN)/affectlens steer --run $(RUN) --emotion anger=1 "My train was cancelled."
	@echo "Report: $(RUN)/report.html"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/python -m pytest

notebooks: $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_notebooks.py --notebooks-to build/notebooks

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
