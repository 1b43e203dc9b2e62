# Everything cleanbill needs beyond Python 3.11-3.13, git and make is installed into .venv, from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv install demo test soak lint format lock clean growth-proof bench

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(BIN)/python ## Create .venv with PYTHON (default python3; needs 3.11, 3.12 or 3.13)

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "error: $(PYTHON) not found. Install Python 3.11, 3.12 or 3.13, or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "error: $(PYTHON) is $$("$(PYTHON)" --version 2>&1); needed is Python 3.11, 3.12 or 3.13." \
			"Name one: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	@echo "==> virtual environment ($$("$(PYTHON)" --version))"
	@"$(PYTHON)" -m venv "$(VENV)" || { \
		rm -rf "$(VENV)"; \
		echo "error: $(PYTHON) cannot make virtual environments (on Debian and Ubuntu: install python3-venv)" >&2; \
		exit 1; }

install: $(INSTALLED) ## Install the locked packages and cleanbill itself into .venv

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo "==> packages of requirements.lock, every one checked against its hash"
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@echo "==> cleanbill itself"
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@$(PIP) check
	@touch $@

demo: install ## Seven simulated months: simulate, run, bill; then see what came out
	@$(BIN)/cleanbill demo

test: lint ## Lint, then run all tests
	@echo "==> pytest"
	@$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

soak: install ## The same promises at larger numbers: kills, flipped bits, mutants (hours)
	@$(BIN)/python -m pytest -m soak -n 0

growth-proof: install ## Hold the growth rule (R3) against labelled data, where it is there
	@$(BIN)/python -m tests.growth.proof

SIZE ?= medium

bench: install ## Measure a day, a month and a bulk load beside a hand-written script (SIZE=small, medium or large)
	@$(BIN)/python -m tests.bench $(SIZE)

lint: install ## Check Python and SQL style
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "==> sqlfluff"
	@$(BIN)/sqlfluff lint --disable-progress-bar --processes 2 dbt_project/models dbt_project/tests

format: install ## Put Python into the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## Renew requirements.lock from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "error: uv not found; it is needed to renew the lock only" >&2; exit 1; }
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev --upgrade --output-file requirements.lock pyproject.toml

clean: ## Remove .venv and caches; data stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dbt_project/target dbt_project/logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
