# Everything that is done with this project, from a fresh clone on. Needed: make, and Python 3.10-3.13.
#
#   make demo     install, train on real images, print the report's path
#   make test     install, run every check but the slow tests (make test-slow)
#
# Another Python and another folder for the environment: make test PYTHON=/opt/python3.12/bin/python VENV=.venv-312

VENV ?= .venv
PYTHON ?=
CANDIDATES = python3.13 python3.12 python3.11 python3.10 python3 python

ifeq ($(OS),Windows_NT)
BIN = $(VENV)/Scripts
else
BIN = $(VENV)/bin
endif

VENDOR = src/kindsight/web/vendor
WEB = $(VENDOR)/htm/package.json

PIP = $(BIN)/python -m pip --disable-pip-version-check --no-input
# Prints nothing; the exit code is 0 if this Python can be used.
FITS = import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install web demo test test-slow install-test lint format docs bench clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "make %-13s %s\n", $$1, $$2 }'

install: $(VENV)/.installed-test $(WEB) ## create .venv and install kindsight with all tools

web: $(WEB) ## fetch the JavaScript of others that the web pages use, from npm

demo: $(VENV)/.installed-demo ## train on 2,624 images of solar cells and print the accuracy beside a paper's
	@$(BIN)/kindsight demo

test: lint $(WEB) ## run every check: style, types, direction of imports, documentation, tests that are not slow
	@echo "== documentation"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "== tests"
	@$(BIN)/python -m pytest -q -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=worksteal

test-slow: $(VENV)/.installed-test $(WEB) ## run the tests that take long; CI runs them after the others
	@$(BIN)/python -m pytest -q -m slow --numprocesses=auto --maxprocesses=4 --dist=worksteal

install-test: $(VENV)/.installed-test $(WEB) ## install the built wheel in clean environments, oldest and newest versions, and train
	@bash .ci/install-test $(BIN)/python

lint: $(VENV)/.installed-test ## run the checks that need no test: style, types, direction of imports
	@echo "== style"
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m ruff format --check --quiet .
	@echo "== types"
	@$(BIN)/python -m mypy --no-error-summary
	@echo "== direction of imports"
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-test ## put the code into the project's format
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

docs: $(VENV)/.installed-test ## build the documentation into site/
	@$(BIN)/python docs/make_cli.py
	@$(BIN)/python docs/make_checks.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The documentation is in site/index.html"

bench: $(VENV)/.installed-bench ## measure speed and accuracy beside the rivals (long; BENCH= for options)
	@$(BIN)/python benchmarks/main_job.py $(BENCH)

clean: ## delete what was built (not .venv, not the runs)
	@rm -rf site dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Each file below marks a set of packages as installed; all depend on pyproject.toml.

$(VENV)/.installed-test: EXTRAS = test,dev,docs,sklearn
$(VENV)/.installed-demo: EXTRAS = demo
$(VENV)/.installed-bench: EXTRAS = bench

$(VENV)/.installed-test $(VENV)/.installed-demo $(VENV)/.installed-bench: $(VENV)/.made pyproject.toml
	@echo "Installing kindsight [$(EXTRAS)] in $(VENV): some minutes the first time"
	@echo "(TensorFlow alone is about 250 MB)."
	@$(PIP) install --quiet --editable ".[$(EXTRAS)]"
	@touch $@

# The lock file has the digests of what npm installs. Where there is no npm, it comes from PyPI.
$(WEB): $(VENDOR)/package-lock.json | $(VENV)/.made
	@$(BIN)/python hatch_build.py
	@touch $@

# A working environment is used; a broken one is created again.
$(VENV)/.made:
	@if $(BIN)/python -c 'import pip; $(FITS)' 2>/dev/null; then touch $@; exit 0; fi; \
	for python in $(if $(PYTHON),'$(PYTHON)',$(CANDIDATES)); do \
	    if "$$python" -c '$(FITS)' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "kindsight needs Python 3.10, 3.11, 3.12 or 3.13 with its venv module."; \
	    echo "Found: $(if $(PYTHON),$(PYTHON),none of $(CANDIDATES))."; \
	    echo "Install one (on Debian and Ubuntu: apt install python3 python3-venv), or give its path:"; \
	    echo "make PYTHON=/path/to/python"; \
	    exit 1; \
	fi >&2; \
	if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi; \
	echo "Creating $(VENV) with $$("$$found" -V)"; \
	"$$found" -m venv $(VENV) || exit 1; \
	$(PIP) install --quiet "pip>=23" || exit 1; \
	touch $@
