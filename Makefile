# demo, test and check set up .venv first, when it is not there or pyproject.toml or constraints.txt changed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test without journeys fuzz check format bench docs pins clean

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Tessera needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/tessera demo

# One process for each core, one thread in each; the slowest are named, so that they do not grow unseen.
test: $(VENV)/ready
	$(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal --durations 10

# What a machine without one of the fast paths would find: each is switched off in turn. Only what draws or compiles can
# change what is compiled for drawing, which takes longest to test.
without: $(VENV)/ready
	for path in $$($(BIN)/python -c 'from tessera.machine.paths import PATHS; print(*PATHS)'); do \
	  echo "without $$path"; \
	  case $$path in packed_*|int8|compiler) compiled=tests/generate/test_compiled.py;; *) compiled=;; esac; \
	  TESSERA_WITHOUT=$$path $(BIN)/pytest -n logical --maxprocesses 8 tests/machine/test_paths.py tests/generate/test_raster.py $$compiled || exit 1; \
	done

journeys: $(VENV)/ready
	$(BIN)/pytest -m slow -n logical --maxprocesses 8 --dist worksteal --durations 10

# `make test` runs 300 damaged files and strange settings of each group; this runs 20,000, and stopped goes on.
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

# The site, in site/; a broken link is an error.
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(VENV)/ready
	$(BIN)/python bench/table.py

# Versions stay as they are where they fit; to upgrade one, delete its line first. Of what pip-compile writes, torch's +cpu and
# the package itself are left out.
pins: $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check pip-tools
	CUSTOM_COMPILE_COMMAND='make pins' $(BIN)/pip-compile --quiet --extra dev --extra ray --strip-extras \
	  --annotation-style line --no-emit-find-links --no-emit-index-url --no-emit-trusted-host \
	  --output-file constraints.txt pyproject.toml
	sed -i.old -e 's/+cpu//' -e '/^tessera-t2i @/d' constraints.txt && rm constraints.txt.old

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache site
