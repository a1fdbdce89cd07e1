# The commands of the project. `make` without a target lists them.

PYTHON ?= python3
PY := .venv/bin/python

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/made-with-$(PYTHON_VERSION)
CLOUD_VENV := .venv-cloud/made-with-$(PYTHON_VERSION)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

STAGE ?= local
TENANT ?= demo
ROLE ?= user
KEY_USER ?= $(ROLE)

.DEFAULT_GOAL := help
.PHONY: help demo up watch down test check check-source check-unit check-tests format audit bench deploy destroy doctor key openai-key python environments

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { gsub(/\$$\$$/, "$$", $$2); printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: up ## start the laptop cloud, run one job on it and watch it live
	$(PY) -m cli.demo

up: environments ## start the laptop cloud or update the running one
	@$(PY) -m infra up

watch: environments ## like up, and again whenever a source file changes, until Ctrl-C
	@$(PY) -m infra watch

down: ## stop the laptop cloud
	@if [ -x $(PY) ]; then $(PY) -m infra down; else echo "Nothing was running."; fi

test: environments ## run all tests; tests without their laptop cloud or browser are skipped with a reason
	$(PY) -m tests $(foreach suite,$(WITHOUT),--without $(suite)) -rs

check: $(VENV) ## run the checks for a merge: format, lint, types, layers, fast tests
	@$(MAKE) --no-print-directory --output-sync=target --keep-going --jobs 2 check-unit check-source check-tests

check-source: $(VENV)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

check-unit: $(VENV)
	$(PY) -m pytest -q -rs -o cache_dir=.pytest_cache/unit tests/unit

check-tests: $(VENV)
	$(PY) -m pytest -q -rs -o cache_dir=.pytest_cache/tests tests/test_architecture.py tests/entrypoints tests/infra

format: $(VENV) ## format the code and apply automatic lint fixes
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

audit: $(VENV) ## check the shipped dependencies for known vulnerabilities
	.venv/bin/pip-audit --requirement requirements.txt --no-deps --disable-pip

bench: environments ## run the benchmarks
	$(PY) -m bench

deploy: $(VENV) ## deploy a stage to AWS: make deploy STAGE=dev
	$(PY) -m infra deploy --stage $(STAGE)

destroy: $(VENV) ## remove a stage from AWS: make destroy STAGE=dev
	$(PY) -m infra destroy --stage $(STAGE)

doctor: $(VENV) ## check a stage and its AWS account: make doctor STAGE=dev
	@$(PY) -m infra doctor --stage $(STAGE)

key: $(VENV) ## create an API key: make key STAGE=dev TENANT=demo ROLE=user KEY_USER=ada, or ROLE=admin ALL_TENANTS=1
	@$(PY) -m infra keys make --stage $(STAGE) --tenant $(TENANT) --role $(ROLE) --user $(KEY_USER) $(if $(ALL_TENANTS),--all-tenants)

openai-key: $(VENV) ## store the OpenAI key of a stage, from $$OPENAI_API_KEY or stdin: make openai-key STAGE=dev
	@$(PY) -m infra openai-key --stage $(STAGE)

environments: | python
	@$(MAKE) --silent --jobs 2 $(VENV) $(CLOUD_VENV)

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Headrace needs Python 3.11 or newer, and '$(PYTHON)' is older or missing. Choose another: make PYTHON=python3.12"; exit 1; }

$(VENV): requirements.txt requirements-dev.txt pyproject.toml | python
	@echo "  making .venv ..."
	@[ -e $@ ] || $(PYTHON) -m venv --clear .venv
	@$(PY) $(PIP_INSTALL) --requirement requirements-dev.txt
	@$(PY) $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(CLOUD_VENV): requirements-cloud.txt | python
	@echo "  making .venv-cloud ..."
	@[ -e $@ ] || $(PYTHON) -m venv --clear .venv-cloud
	@.venv-cloud/bin/python $(PIP_INSTALL) --requirement requirements-cloud.txt
	@touch $@
