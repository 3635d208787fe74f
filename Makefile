# make demo, make test: everything a newcomer needs. PYTHON=python3.12 chooses another interpreter.
# The first interpreter found that is new enough; a message says what is wanted when there is none.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv
BIN := $(VENV)/bin
NAME ?= side_by_side

.PHONY: demo test slow lint docs bench clean
.DEFAULT_GOAL := demo

demo: $(VENV)/$(VERSION)-run
	$(BIN)/posterax demo

test: $(VENV)/$(VERSION)-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

slow: $(VENV)/$(VERSION)-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow $(ARGS)

lint: $(VENV)/$(VERSION)-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/$(VERSION)-dev
	$(BIN)/python docs/render.py site

bench: $(VENV)/$(VERSION)-test
	$(BIN)/python tests/benchmarks/bench.py $(NAME)

clean:
	rm -rf $(VENV) site dist .cache

# One environment, grown by need: the stamp of a wish is newer than pyproject.toml once it has been granted.
# Another Python version starts afresh.
$(VENV)/$(VERSION)-base:
	@if [ -z "$(VERSION)" ]; then \
		echo "posterax needs Python 3.11 or newer; '$(PYTHON)' is not. Install one, or name it: make PYTHON=python3.12"; exit 1; fi
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/$(VERSION)-run: $(VENV)/$(VERSION)-base pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/$(VERSION)-test: $(VENV)/$(VERSION)-base pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/$(VERSION)-run

$(VENV)/$(VERSION)-dev: $(VENV)/$(VERSION)-base pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/$(VERSION)-run $(VENV)/$(VERSION)-test
