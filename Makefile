# One command per job. Each sets up what it needs: Python >= 3.11 and make are enough.
# Everything installed is pinned by requirements/lock.txt (see requirements/README.md).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help train test test-slow test-new test-compat test-interop lint format types docs bench \
        accuracy golden check lock clean

VENV := .venv
BIN  := $(VENV)/bin
LOCK := requirements/lock.txt
TORCH := torch==2.13.0
LINEN_PROGRAMS := netket==3.23.0 brax==0.14.2 clu==0.0.12 numpyro==0.22.0

PIP_QUIET := --quiet --quiet --disable-pip-version-check
PYTEST := pytest -n logical --maxprocesses=4 --dist worksteal
# Comparisons with other libraries that have targets of their own are left to these.
QUICK := -m "not slow" --ignore tests/interop --ignore tests/compat

# $(call install,VENV,EXTRAS): Linnet and the packages of these extras, as locked.
install = $(1)/bin/python -m pip install $(PIP_QUIET) --constraint $(LOCK) \
	--editable '.[$(2)]'

# $(call all-tests,BIN): the tests, then the doctests; or what ARGS chooses.
all-tests = $(if $(ARGS),$(1)/pytest $(ARGS),$(1)/$(PYTEST) $(QUICK) && \
	$(1)/$(PYTEST) --doctest-modules linnet)

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
		awk -F'|' '{ printf "  make %-13s %s\n", $$1, $$2 }'

# ---- environments: one, which grows by the extras that a target asks for

$(BIN)/python:
	@python=$$(.ci/find-python 3.11); \
	if [ -z "$$python" ]; then \
		echo "Linnet needs Python 3.11 or newer, with its venv module."; \
		echo "None was found (looked for python3 and python3.11 to python3.14)."; \
		echo "On Debian and Ubuntu: apt install python3.11 python3.11-venv"; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

$(VENV)/.has-%: $(LOCK) pyproject.toml | $(BIN)/python
	@echo "Installing the pinned packages for: $*"
	@$(call install,$(VENV),$*)
	@touch $@

# ---- the library

train: $(VENV)/.has-examples ## Train on handwritten digits (ARGS="--help" for flags)
	@$(BIN)/python examples/digits/train.py $(ARGS)

test: $(VENV)/.has-test ## All tests and doctests (or ARGS="tests/core -k stack")
	@$(call all-tests,$(BIN))

test-slow: $(VENV)/.has-test ## The tests that take seconds each: several processes, ...
	@$(BIN)/$(PYTEST) -m slow --ignore tests/interop --ignore tests/compat $(ARGS)

test-new: ## The tests on the newest Python found, with the newest JAX
	@python=$$(.ci/find-python --above 3.11); \
	if [ -z "$$python" ]; then \
		echo "Skipped: no Python newer than 3.11 was found on this machine."; \
		exit 0; \
	fi; \
	set -e; \
	[ -x .venv-new/bin/python ] || $$python -m venv .venv-new; \
	.venv-new/bin/python -m pip install $(PIP_QUIET) --upgrade \
		--upgrade-strategy eager --editable '.[test]'; \
	.venv-new/bin/python -c "import sys, jax; \
		print('Python', sys.version.split()[0], 'JAX', jax.__version__)"; \
	$(call all-tests,.venv-new/bin)

test-compat: .venv-compat/.ready ## Flax Linen's interface, and programs written for it
	@.venv-compat/bin/$(PYTEST) tests/compat $(ARGS)

.venv-compat/.ready: $(LOCK) pyproject.toml | $(BIN)/python
	@echo "Installing the pinned packages and $(LINEN_PROGRAMS)"
	@[ -x .venv-compat/bin/python ] || $(BIN)/python -m venv .venv-compat
	@$(call install,.venv-compat,test)
	@.venv-compat/bin/python -m pip install $(PIP_QUIET) --constraint $(LOCK) \
		$(LINEN_PROGRAMS)
	@touch $@

# PyTorch is compared on Python 3.11 only, in an environment of its own.
has-torch = [ "$$($(BIN)/python -c 'import sys; print(sys.version_info[:2])')" = \
	"(3, 11)" ]

test-interop: $(BIN)/python ## Agreement with PyTorch (Python 3.11 only)
	@set -e; \
	if ! $(has-torch); then \
		echo "Skipped: $(TORCH) is compared on Python 3.11 only."; \
		exit 0; \
	fi; \
	$(MAKE) --no-print-directory .venv-interop/.ready; \
	.venv-interop/bin/pytest tests/interop $(ARGS)

.venv-interop/.ready: $(LOCK) pyproject.toml
	@echo "Installing the pinned packages and $(TORCH)"
	@[ -x .venv-interop/bin/python ] || $(BIN)/python -m venv .venv-interop
	@$(call install,.venv-interop,test)
	@.venv-interop/bin/python -m pip install $(PIP_QUIET) --constraint $(LOCK) $(TORCH)
	@touch $@

bench: $(BIN)/python ## The benchmarks, against raw JAX and the peers
	@set -e; \
	if $(has-torch); then venv=.venv-interop; else venv=$(VENV); fi; \
	[ $$venv = $(VENV) ] || $(MAKE) --no-print-directory .venv-interop/.ready; \
	[ -e $$venv/.has-bench ] || $(call install,$$venv,bench); \
	touch $$venv/.has-bench; \
	$$venv/bin/python benchmarks/run.py $(ARGS)

# ---- the house

lint: $(VENV)/.has-dev ## Style and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: $(VENV)/.has-dev ## Write what `make lint` asks for
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

types: $(VENV)/.has-dev ## Static types
	@$(BIN)/mypy

docs: $(VENV)/.has-docs ## The documentation, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

golden: $(VENV)/.has-test ## Accept the present public names, trees and messages
	@$(BIN)/python tests/surface.py
	@$(BIN)/python tests/zoo

accuracy: ## Measure each layer against its oracle, into docs/accuracy.md
	@$(MAKE) --no-print-directory test-interop \
		ARGS="--ignore tests/interop/table_test.py --accuracy docs/accuracy.md"

check: ## What CI does
	@.ci/run

lock: $(BIN)/python ## Refresh requirements/lock.txt
	@$(BIN)/python -m pip install $(PIP_QUIET) uv
	@$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 \
		--all-extras --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file $(LOCK) pyproject.toml

clean: ## Remove what was made, environments included
	@rm -rf $(VENV) .venv-new .venv-compat .venv-interop site build dist \
		.pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
