# make bench   environment in .venv, then the embedded default at half of its costs: table, plots and page in results/
# make gpu     environment, then the tests that need an NVIDIA GPU and every method timed on it: ten minutes in all
# make test    environment, then the tests, without those that are slow and rarely tell anything
# make test-all    all tests
# make test-numerics    the tests that hang on rounding, on every CPU capability and number of threads
# make test-lowest   all tests with the lowest releases that pyproject.toml takes; TESTS="FILE ..." for a part of them
# make faults  600 faults injected into runs, for which it has to be root: an hour at most; FAULTS=60 SEED=1 for others
# make weights every embedded weights file from nothing: hours on two cores
# make docs    the pages of docs/ as a site in site/, with every link checked
# make fit     what `predict` knows of GPUs, fitted on published speeds anew: minutes
# make check   lint, format, import directions, dead code, types

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
BIN := .venv/bin
READY := .venv/.ready
WITH_TOOLS := .venv/.ready-dev
CACHE ?= results/train
LOWEST := .venv-lowest
TESTS ?= tests
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --durations=20
# Kept even where the environment says not to: without bytecode every start of Python compiles torch and timm anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: bench docs gpu test test-all test-numerics test-lowest faults check format fit weights clean

bench: $(READY)
	$(BIN)/python run_bench.py --quick

# The tests take about two of the ten minutes, and where one fails there are measurements all the same; MINUTES=30 times
# more of what is compiled.
gpu: $(WITH_TOOLS)
	@$(BIN)/python run_bench.py gpu --check
	@code=0; $(BIN)/python -m pytest tests/gpu || code=$$?; \
	  $(BIN)/python run_bench.py gpu --minutes $(or $(MINUTES),8) || code=$$?; exit $$code

test: $(WITH_TOOLS)
	$(PYTEST) -m "not slow"

test-all: $(WITH_TOOLS)
	$(PYTEST)

test-numerics: $(WITH_TOOLS)
	tests/numerics.sh

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python run_bench.py doctor
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto --dist worksteal $(TESTS)

faults: $(WITH_TOOLS)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.injected --faults $(or $(FAULTS),600) --seed $(or $(SEED),0)

check: $(WITH_TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vulture
	$(BIN)/python -m pytest tests/test_imports.py tests/test_dependencies.py
	$(BIN)/mypy

format: $(WITH_TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python >= 3.11 is needed, $(PYTHON) is older: apt install python3.11, or make PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv .venv \
	  || { echo "The venv module is missing: apt install python3-venv"; rm -rf .venv; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e .
	@touch $(READY)

$(WITH_TOOLS): $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]'
	@touch $(WITH_TOOLS)

$(LOWEST)/.ready: $(WITH_TOOLS)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev]'
	@touch $@

docs: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fit: $(READY)
	$(BIN)/python run_bench.py predict --fit --out results/predict
	cp results/predict/fitted.json suite/measure/prediction/

weights: $(READY)
	$(BIN)/python -m suite.train.embedded.classifier --out suite/weights/scenes_vit.safetensors --cache $(CACHE)
	$(BIN)/python -m suite.train.embedded.rotary_classifier --out suite/weights/scenes_eva.safetensors --cache $(CACHE)
	$(BIN)/python -m suite.train.embedded.denoiser --compile --out suite/weights/scenes_dit.safetensors --cache $(CACHE)
	$(BIN)/python -m suite.train.embedded.captioner --out suite/weights/scenes_git --cache $(CACHE)
	$(BIN)/python -m suite.train.embedded.segmenter --out suite/weights/scenes_segmenter.safetensors --cache $(CACHE)
	$(BIN)/python -m suite.train.embedded.reducers --cache $(CACHE)

clean:
	rm -rf .venv $(LOWEST) build dist *.egg-info
