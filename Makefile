# Every target makes its own .venv first; nothing else needs to be installed but Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint format

demo: $(STAMP)
	$(BIN)/unmask demo

test: lint
	$(BIN)/pytest -n 2 --doctest-modules
	UNMASK_SHAPES=1 $(BIN)/pytest -n 2 -q tests/test_*.py tests/attacks

test-slow: $(STAMP)
	$(BIN)/pytest -n 2 -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and by itself, so that its wheel (with or without CUDA) is the one that the index at hand offers.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@
