# make demo | test | figures | results | lint | bench | clean
# Each sets up .venv on its first run, and again only after pyproject.toml or constraints.txt changes.

.DEFAULT_GOAL := demo
.DELETE_ON_ERROR:
.PHONY: demo test figures results lint bench clean

# The first of these that runs and is new enough. Another: make PYTHON=/path/to/python test
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

BIN := .venv/bin
STAMP := .venv/installed

demo: $(STAMP)
	$(BIN)/zoo compare --data digits --out runs/demo

# A process for each core, with one thread each: they wait for each other less than threads do.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# The timed comparisons have the machine for themselves; then recipes run side by side.
figures: $(STAMP)
	$(BIN)/python -m pytest -m figures tests/benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m figures -n auto tests/figures

# The figures once more, written to results/ and into the README's table.
results: export ZOO_RESULTS_DIR = results
results: figures
	$(BIN)/python results/table.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(STAMP)
	$(BIN)/python -m pytest tests/benchmarks -m figures

clean:
	rm -rf .venv build dist runs .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp goes first and comes back last, so an install that was cut short is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, found: $(or $(PYTHON),none). Name one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@rm -f $@
	@echo "Installing into .venv, once; this takes a few minutes."
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || \
		$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
