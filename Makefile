# `make help` lists the commands. Each creates what it needs at its first call.

PYTHON ?= python3
VENV ?= .venv
VENV_OLDEST ?= .venv-oldest
VENV_DOCS ?= .venv-docs
VENV_WHEEL ?= .venv-wheel
GALLERY ?= all
WORKERS ?= 2
PYTEST_ARGS ?=

PY = "$(VENV)/bin/python"
# The user's settings that lead an import, or an installation, elsewhere.
unexport PYTHONPATH PYTHONHOME PIP_PREFIX PIP_TARGET PIP_USER PIP_ROOT PIP_DRY_RUN PIP_PYTHON
PYTEST_OPTIONS = -n $(WORKERS) $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-oldest lint docs dist test-wheel clean venv venv-oldest venv-docs python

help: ## list the commands
	@echo "Commands:"
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) PYTEST_ARGS=$(PYTEST_ARGS)"

demo: venv ## the paper's comparison on scikit-learn's digits, into results/overview/
	@$(PY) benchmarks/reproduce.py --preset digits --seeds 3 --out results

test: venv ## the tests, without the long ones
	@$(PY) -m pytest $(PYTEST_OPTIONS)

test-all: venv ## all tests; those on a GPU too where there is one
	@$(PY) -m pytest -m "" $(PYTEST_OPTIONS)

test-oldest: venv-oldest ## the tests with the oldest versions that pyproject.toml admits (Python 3.10 to 3.12)
	@"$(VENV_OLDEST)/bin/python" -m pytest $(PYTEST_OPTIONS)

lint: venv ## ruff: errors and format; mypy: the types of the public names
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs: venv-docs ## the site, into docs/_build/html; GALLERY=start runs only the gallery's first tier
	@GALLERY=$(GALLERY) MPLBACKEND=Agg OMP_NUM_THREADS=1 "$(VENV_DOCS)/bin/python" -m sphinx \
		--fail-on-warning --keep-going --builder html docs docs/_build/html
	@echo "The site: docs/_build/html/index.html"

dist: venv-docs ## wheel and sdist, built and checked, into dist/
	@rm -rf dist
	@"$(VENV_DOCS)/bin/python" -m build --outdir dist .
	@"$(VENV_DOCS)/bin/python" -m twine check --strict dist/*

test-wheel: dist ## the tests with the wheel, installed from dist/, and no source in reach
	@rm -rf build/wheel && mkdir -p build/wheel && cp -r tests setup.cfg build/wheel
	@"$(PYTHON)" -m venv --clear "$(VENV_WHEEL)"
	@"$(VENV_WHEEL)/bin/python" -m pip install --quiet "$$(ls dist/*.whl)[plots,bench,test]"
	@cd build/wheel && "$(abspath $(VENV_WHEEL))/bin/python" -m pytest $(PYTEST_OPTIONS) tests --pyargs advfeat

clean: ## remove caches and builds; environments and results stay
	@rm -rf build dist docs/_build docs/api docs/gallery docs/results .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

venv: python
	@"$(PYTHON)" tools/environment.py "$(VENV)"

venv-docs: venv
	@"$(PYTHON)" tools/environment.py "$(VENV_DOCS)" --docs "$(VENV)"

venv-oldest: python
	@"$(PYTHON)" tools/environment.py "$(VENV_OLDEST)" --oldest

python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "'$(PYTHON)' was not found. Install Python 3.10 or newer, or name one: make PYTHON=..." >&2; \
		exit 1; }
