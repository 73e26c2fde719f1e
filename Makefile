# Two commands for everybody: `make demo` and `make test`. `make check` is what CI runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: demo test check lint types contracts wheel-night clean

demo: $(VENV)/.runs        ## simulate a small night and stream it into the live dashboard; options in ARGS
	$(BIN)/qlstream demo $(ARGS)

test: $(VENV)/.tests       ## all tests; those that lack something skip and say how to get it
	$(BIN)/python -m pytest $(ARGS)

check: lint types contracts wheel-night test

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.tests
	$(BIN)/mypy

contracts: $(VENV)/.tests
	$(BIN)/lint-imports

wheel-night: $(VENV)/.tests  ## a mini night from the built wheel, in a clean environment
	PYTHON=$(BIN)/python bash .ci/wheel-night

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.tests: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@ $(VENV)/.runs

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
