# make demo: set up .venv and compress a picture. make test: the same environment plus the test suite.
# make fuzz: coverage-guided fuzzing of everything that reads files, ten minutes; see fuzz/README.md.
# Any Python 3.11 will do: make demo PYTHON=/path/to/python3.11
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
BIN := .venv/bin
FUZZ ?= --seconds 600

.PHONY: demo test lint wheel fuzz clean

demo: .venv/.core
	$(BIN)/python -m rcccodec.demo

test: .venv/.test
	$(BIN)/python -m pytest

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: .venv/.core
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

fuzz: .venv/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m fuzz.guided $(FUZZ)

# Torch first and alone, pinned, so that nothing that follows can pull another build of it.
.venv/.core: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/.test: .venv/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
