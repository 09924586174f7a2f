# Everything lives in .venv; nothing is installed outside it but the cached Java servers of the tests
# (FUSEBOARD_CACHE, by default ~/.cache/fuseboard).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.9.9
STAMP := $(VENV)/.setup-done
PATHS := sdk schemas detectors streams tests benchmarks examples

.PHONY: help setup env servers demo test lint types format bench clean
.DEFAULT_GOAL := help

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: env servers ## make .venv with everything locked in uv.lock, and fetch the servers the tests run against

env: $(STAMP)

# uv installs what uv.lock says, to the hash. Where there is none, pip puts one into .venv.
$(STAMP): pyproject.toml uv.lock Makefile
	@if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --quiet --python "$(PYTHON)" $(VENV); \
	else \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			|| { echo "Python 3.11 or newer is needed; name one with 'make $(MAKECMDGOALS) PYTHON=python3.12'." >&2; exit 1; }; \
		test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
			|| { rm -rf $(VENV); echo "A virtual environment cannot be made: on Debian, install python3-venv." >&2; exit 1; }; \
		test -x $(BIN)/uv || $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
		test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=$(UV_VERSION)'; \
	fi
	@UV=$$(command -v uv || echo $(BIN)/uv); \
		$$UV sync --quiet --frozen --inexact --all-extras --group dev --python $(BIN)/python
	@touch $@

servers: env
	@$(BIN)/python -m tests.support.maven

demo: env ## watch a tool go bad, the breaker open, the call refused, and the recovery
	@$(BIN)/fuseboard demo $(ARGS)

test: setup ## run the whole test suite; ARGS='tests/unit -k epoch' runs a part
	@$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),tests/lanes.sh $(BIN)/python)

lint: env ## ruff and the layers
	@$(BIN)/ruff check $(PATHS)
	@$(BIN)/ruff format --check $(PATHS)
	@$(BIN)/lint-imports

types: env ## mypy, strict
	@$(BIN)/mypy

format: env ## rewrite the code as ruff would have it
	@$(BIN)/ruff check --fix $(PATHS)
	@$(BIN)/ruff format $(PATHS)

bench: setup ## run every benchmark and print a JSON line for each
	@for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) --json || exit 1; done

clean: ## remove .venv and what the tools leave behind
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
