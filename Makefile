# faceattr: `make train` ends with a trained model, `make test` runs the suite; both make .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup train test test-slow lint format type docs fuzz bench bench-gpu reproduce chaos clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

# A stamp per set of packages: made again only when pyproject.toml or setup.py changes.
$(VENV)/.train: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.test: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs,sweeps,tracking]'
	touch $@ $(VENV)/.train

setup: $(VENV)/.test  ## .venv with everything for development

train: $(VENV)/.train  ## train on generated sample faces; ARGS='model=vgg16 …' passes arguments on
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.test  ## the test suite without its slow tests; ARGS='-k resume' passes arguments on
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' $(ARGS)

test-slow: $(VENV)/.test  ## the slow tests: the wheel in its own environment, sweeps in parallel, the site in a browser, …
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

fuzz: $(VENV)/.test  ## mutated images, tables, command lines and checkpoints for 30 minutes; seconds=600 for ten
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py $(or $(seconds),1800)

chaos: $(VENV)/.test  ## kill runs and sweeps at random moments, resume them, compare bit for bit; ARGS='--kills 8 --seed 1'
	$(BIN)/python tests/chaos.py $(ARGS)

docs: $(VENV)/.test  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

lint: $(VENV)/.test  ## ruff: rules and format; import-linter: directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.test  ## ruff: fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.test  ## mypy
	$(BIN)/mypy

$(VENV)-bench/.keras:
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check tensorflow-cpu scipy pillow
	touch $@

bench: $(VENV)/.train $(VENV)-bench/.keras  ## measure speed beside other frameworks, write docs/benchmarks.md; ARGS='--cases s3 --quick' passes arguments on
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-gpu: $(VENV)/.test  ## the tests that need a CUDA device, and speed beside other frameworks, in 8 minutes: benchmarks/results-gpu.json
	$(BIN)/python benchmarks/gpu.py $(ARGS)

reproduce: $(VENV)/.train  ## run the published studies, write docs/studies-results.md; ROOT=data folder [budget=study] [ARGS='--only s4a']
	$(BIN)/python studies/reproduce.py $(ROOT) --budget $(or $(budget),quick) $(ARGS)

clean:  ## remove .venv and caches; runs (outputs/, multirun/) stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist src/*.egg-info
