# Two commands set everything up: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PEERS ?= build/peers
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.dev-installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help run test chaos lint dogfood bench bench-peers clean lock

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(STAMP): $(BIN)/python pyproject.toml proto/build_hook.py $(wildcard proto/runner/v1/*.proto) requirements.lock
	$(BIN)/pip install --quiet --constraint requirements.lock --editable .
	@$(BIN)/python -m compileall -q daemon agent_runner sandbox runnerlib proto
	@touch $@

$(DEV_STAMP): $(STAMP) requirements-dev.txt
	$(BIN)/pip install --quiet --constraint requirements.lock --requirement requirements-dev.txt
	@touch $@

run: $(STAMP) ## Set up, start local mode, run examples/hello.yaml, stop
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/run.sh

# Most tests wait for processes, so two at once take little more than half the time; tests/installations.py says what does not.
test: $(DEV_STAMP) ## Set up and run the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

chaos: $(DEV_STAMP) ## Run 500 jobs under 60 kills, and the other long fault tests; prints a table
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

lint: $(DEV_STAMP) ## Run every linter, cheap to dear
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The jobs see of this host only /usr, so the interpreter is the system's, of the version of the virtual environment.
dogfood: $(DEV_STAMP) ## Run every linter as jobs of this runner itself, behind its walls
	@mkdir -p build/ci && cp -rlf $(BIN) $(VENV)/lib proto build/ci/
	$(BIN)/runner pipeline run jobs/ci.yaml

bench: $(DEV_STAMP) ## Measure against the floors of benchmarks/README.md
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-peers: $(DEV_STAMP) ## Install other tools into build/peers and measure beside them
	@sh benchmarks/peers/install.sh $(BIN)/python $(PEERS)
	BENCH_PEERS=$(PEERS) $(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

lock: $(DEV_STAMP) ## Resolve requirements.lock anew (needs uv on PATH)
	uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url \
		--no-emit-find-links --output-file requirements.lock pyproject.toml requirements-dev.txt

clean: ## Remove what was built
	rm -rf $(VENV) build dist proto/runner/v1/*_pb2*
