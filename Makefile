# Everything happens in .venv: the first target that needs it makes it, with any Python from 3.11 to 3.14.
# PYTHON=/path/to/python chooses one. ARGS="..." is handed on to run, test, bench and bench-quick.

SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
ARGS ?=

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: .venv/installed ## Installs the services, the library and the `kourou` command into .venv

.PHONY: run
run: .venv/installed ## Starts NameServer, broker and admin service in one process; Ctrl-C stops them
	@exec $(BIN)/kourou dev $(ARGS)

.PHONY: test
test: .venv/installed-dev ## Runs the tests, or those of ARGS="tests/unit -k log"
	@$(BIN)/pytest --numprocesses 2 --dist loadgroup $(ARGS)

.PHONY: check-readme
check-readme: ## Runs the README's commands as they are written, on a clean clone of the last commit
	@python3 tests/readme/check.py

.PHONY: lint
lint: .venv/installed-dev ## Checks style, types, imports between packages, protocols, generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf format --diff --exit-code
	cd proto && ../$(BIN)/buf lint
	cd proto && ../$(BIN)/buf breaking --against released.binpb
	$(BIN)/python proto/generate.py --check
	$(BIN)/python -m deploy.grafana.generate --check
	$(BIN)/python docs/generate_settings.py --check

.PHONY: fmt
fmt: .venv/installed-dev ## Formats the code and mends what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	cd proto && ../$(BIN)/buf format --write

.PHONY: proto
proto: .venv/installed-dev ## Generates kourou.protocol from proto/
	$(BIN)/python proto/generate.py

.PHONY: docs
docs: .venv/installed-dev ## Generates docs/settings.md from the definitions of all settings
	$(BIN)/python docs/generate_settings.py

.PHONY: proto-released
proto-released: .venv/installed-dev ## Makes the protocols as they are what `buf breaking` compares with
	cd proto && ../$(BIN)/buf build --exclude-source-info --output released.binpb

.PHONY: bench
bench: .venv/installed-dev ## Measures beside RocketMQ, Kafka, NATS and RabbitMQ, which are installed below build/
	@$(BIN)/python -m benchmarks.rivals $(ARGS)

QUICK := unary batched receive latency memory start --seconds 2 --rounds 2

.PHONY: bench-quick
bench-quick: .venv/installed-dev ## Measures Kourou alone beside a bare echo, in two minutes; ARGS="" names others
	@$(BIN)/python -m benchmarks $(or $(ARGS),$(QUICK))

.PHONY: dashboards
dashboards: .venv/installed-dev ## Generates Grafana's dashboards from deploy/grafana/boards
	$(BIN)/python -m deploy.grafana.generate

.PHONY: lock
lock: .venv/installed-dev ## Resolves all dependencies anew within their ranges, for all Pythons and systems
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate \
		--no-emit-package kourou clients/python/pyproject.toml services/pyproject.toml --group pyproject.toml:dev \
		--output-file requirements.lock

.PHONY: clean
clean: ## Removes .venv and caches; the data folder stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf clients/rust/target clients/java/target tests/compat/java/target clients/go/gen clients/node/node_modules
	find clients services tests proto benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The two below are stamps: an install that broke off is taken up again, a complete one costs nothing.

.venv/installed: requirements.lock clients/python/pyproject.toml services/pyproject.toml
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		"$$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
			2>/dev/null && break; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Kourou needs a Python from 3.11 to 3.14 with its venv module (on Debian: apt install python3-venv)" >&2; \
		exit 1; \
	fi; \
	echo "Installing into .venv with $$("$$python" --version) ..."; \
	"$$python" -m venv .venv
	@$(PIP) --editable ./clients/python --editable ./services
	@touch $@

.venv/installed-dev: .venv/installed pyproject.toml
	@$(PIP) --upgrade pip
	@$(PIP) --group dev
	@touch $@
