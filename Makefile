# demo, test and check set up .venv first, when it is not there or pyproject.toml or constraints.txt changed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test journeys fuzz check format bench clean

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Tessera needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/tessera demo

test: $(VENV)/ready
	$(BIN)/pytest

journeys: $(VENV)/ready
	$(BIN)/pytest -m slow

fuzz: $(VENV)/ready
	$(BIN)/python tests/fuzz/fuzz.py

check: $(VENV)/ready
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/ruff check src tests bench examples
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest tests/test_layers.py

format: $(VENV)/ready
	$(BIN)/ruff format src tests bench examples
	$(BIN)/ruff check --fix src tests bench examples

bench: $(VENV)/ready
	$(BIN)/python bench/table.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
