# One command to see it, one to test it. Both make their own .venv from nothing but Python 3.11+ and pip.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 0
.PHONY: help demo up test cluster-test check format generate bench accuracy kernels lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# uv is several times faster; where it is missing, venv and pip do the same.
define INSTALL
	@if command -v uv >/dev/null 2>&1; then \
	  test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) $(VENV); \
	  uv pip install --quiet --python $(BIN)/python -e '.$(1)'; \
	else \
	  test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.$(1)'; \
	fi
	@touch $@
endef

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tidewarden needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing Tidewarden into $(VENV) (once) …" >&2
	$(call INSTALL,)
	@echo "Compiling the kernels (once) …" >&2
	@$(BIN)/python -m tidewarden_cli.warm

$(VENV)/.installed-dev: $(VENV)/.installed
	$(call INSTALL,[dev])
	@$(BIN)/python -m tidewarden_cli.warm --all

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(call INSTALL,[dev$(,)bench])
, := ,

demo: $(VENV)/.installed ## Real incidents and a simulated fleet, live at http://127.0.0.1:8000 (ARGS="--exit-when-done --json")
	@$(BIN)/tidewarden demo $(ARGS)

up: $(VENV)/.installed ## Run your own resources: make up ARGS="-f FILE.yaml"
	@$(BIN)/tidewarden up $(ARGS)

# Whole files go to workers, since servers belong to a worker, and in the order of their names: the long ones, which wait
# more than they compute, begin early, and the many short ones of tests/unit fill up what is left.
test: $(VENV)/.installed-dev ## All tests (ARGS="tests/unit -x"; WORKERS=2: in two processes, a third faster)
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

cluster-test: $(VENV)/.installed-dev ## End to end on kind (ARGS="--keep", or "--cluster current" for the cluster kubectl speaks to)
	@$(BIN)/pytest tests/cluster $(ARGS)

check: $(VENV)/.installed-dev ## ruff, mypy strict, import contracts, generated files up to date
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tidewarden_cli.reference --check
	@if command -v helm >/dev/null; then $(BIN)/python charts/install.py --check; else echo "helm is not here: manifests/install.yaml unchecked"; fi

format: $(VENV)/.installed-dev ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

generate: $(VENV)/.installed-dev ## Write docs/reference, crds, dashboards, alert rules, from the code
	@$(BIN)/python -m tidewarden_cli.reference
	@if command -v helm >/dev/null; then $(BIN)/python charts/install.py; else echo "helm is not here: manifests/install.yaml left as it is"; fi

bench: $(VENV)/.installed-bench ## Speed and accuracy beside the peers, in one run
	@$(BIN)/python -m benchmarks $(ARGS)

DATA ?= ../shared/data
accuracy: $(VENV)/.installed ## Every model and peer on labelled data, in one table (DATA=FOLDER ARGS="--quick --models ours")
	@$(BIN)/python -m benchmarks.accuracy --data $(DATA) $(ARGS)

kernels: $(VENV)/.installed ## Compile all kernels anew (numba does not see edits of what is compiled into another file)
	@find tidewarden simulator services -name '*.nb[ic]' -delete
	@$(BIN)/python -m tidewarden_cli.warm --all

lock: $(VENV)/.installed-dev ## Pin every dependency for the image (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --no-header --extra cluster pyproject.toml -o requirements.lock

clean: ## Remove what make has made here
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
