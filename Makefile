# `make demo` and `make test` are all the set-up there is: each makes .venv when it is missing or stale.
# The work of doing so is in requirements/install; everything else here is one line.

VENV := .venv
BIN  := $(VENV)/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-scale test test-all lint types bench requirements base dev clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: base  ## play the whole story: proofs, cheats, refunds, receipts
	@$(BIN)/proofhold demo $(ARGS)

demo-scale: dev  ## 10,000 jobs, one PostgreSQL, three workers, and a page of what became of them
	@$(BIN)/python demo/scale.py $(ARGS)

test: dev  ## the tests, without the long ones (ARGS="-k escrow" goes to pytest)
	@echo "Running the tests (a few minutes; 'make test-all' adds fuzzing, kill tests and mutants)"
	@$(BIN)/pytest -m "not long" -n auto --dist loadfile $(ARGS)

test-all: dev  ## all tests, then the mutation run
	@$(BIN)/pytest
	@PYTHONPATH=tests $(BIN)/python -P -m mutation $(MODULES)

lint: dev  ## ruff, formatting, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

types: dev  ## mypy --strict
	@$(BIN)/mypy

bench: dev  ## measure, and renew bench/RESULTS.md
	@for bench in bench/[a-z]*.py; do echo "$$bench"; $(BIN)/python "$$bench" || exit; done

requirements:  ## renew the pinned names, versions and hashes
	@sh requirements/renew

clean:  ## remove the environment and what tools left behind
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

base dev:
	@sh requirements/install $@ $(VENV)
