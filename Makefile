# Everything sets itself up: `make run` and `make test` work on a machine with python3, git and make.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNBOOKS := $(BIN)/runbooks
PYTEST := $(BIN)/python -m pytest -q

.PHONY: help run test test-fast unit lint lab bench soak docs lock clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml lib/runbooks_sandbox/pyproject.toml
	@tests/set-up.sh $(PYTHON) $(VENV)
	@touch $@

run: $(READY)  ## Play the runbooks against a real control plane on this machine
	@$(RUNBOOKS) sandbox start
	@$(RUNBOOKS) sandbox start --name kourier --ingress kourier
	@echo
	@$(RUNBOOKS) run all --parameters parameters/sandbox --mode apply --records records
	@echo
	@$(RUNBOOKS) run all --parameters parameters/sandbox-kourier --mode apply --records records
	@echo
	@$(RUNBOOKS) records verify --all --records records
	@$(RUNBOOKS) records render --all --records records
	@echo
	@echo "Read the records:  records/index.html in a browser, or the notebooks: make lab"
	@echo "The sandboxes stay up; see one:  $(RUNBOOKS) sandbox status [--name kourier]"
	@echo "                  stop them:  $(RUNBOOKS) sandbox stop; $(RUNBOOKS) sandbox stop --name kourier"

test: lint  ## All checks and tests
	@$(BIN)/python tests/interpreters.py tests/unit
	@$(RUNBOOKS) sandbox prepare --gateway istio
	@tests/browser/set-up.sh
	@$(PYTEST) -rs -n 2 --dist loadfile --no-loadscope-reorder \
	  tests/browser tests/notebooks tests/cluster tests/faults tests/records  # what takes longest begins

test-fast: lint unit  ## What can be told in under a minute: lint, and unit tests on one interpreter

unit: $(READY)
	@$(PYTEST) tests/unit

lint: $(READY)  ## ruff, mypy, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lab: $(READY)  ## JupyterLab on copies of the runbooks, in work/
	@$(RUNBOOKS) copy work && cp -rn records work/ 2>/dev/null || true
	@cd work && RUNBOOKS_RECORDS=$(CURDIR)/records ../$(BIN)/jupyter lab index.ipynb $$([ "$$(id -u)" = 0 ] && echo --allow-root)

bench: $(READY)  ## Measure, and write docs/measurements.md
	@$(BIN)/python tests/bench.py

docs: $(READY)  ## Write the reference pages and the pictures anew
	@$(BIN)/python tests/reference.py
	@$(BIN)/python -m tests.pitfalls_table  # docs/pitfalls.md
	@$(BIN)/python -m tests.versions_table  # docs/versions.md
	@$(BIN)/python -m tests.errors_table  # docs/errors.md
	@$(BIN)/python tests/pictures.py
	@mkdir -p docs/jupyterlab && RUNBOOKS_PICTURES=$(CURDIR)/docs/jupyterlab $(PYTEST) tests/browser --basetemp=$$(mktemp -d)

soak: $(READY)  ## Long campaigns; run them before a release
	@$(PYTEST) -m soak -o addopts= tests
	@$(BIN)/python -m tests.engine_table  # docs/engine.md
	@$(BIN)/python -m tests.broken_table  # docs/broken-clusters.md

lock: $(READY)  ## Resolve requirements.lock anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --no-emit-package serverless-mesh-runbooks-sandbox \
	  --all-extras --group dev pyproject.toml lib/runbooks_sandbox/pyproject.toml -o requirements.lock

clean:  ## Remove the environment, caches and copies; the sandbox and the records stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache work dist
