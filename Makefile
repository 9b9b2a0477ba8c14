# The developer's interface: `make help` lists the targets. Slow things are cached in $(CACHE), outside the clone.

SHELL := /bin/bash
CACHE ?= $(HOME)/.cache/kaito-hera
CLUSTER ?= demo
UV := $(CACHE)/tools/bin/uv
PYTHON := .venv/bin/python
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help lint lock cluster-binaries up down

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(UV):
	python3 -m venv $(CACHE)/tools
	$(CACHE)/tools/bin/pip install --quiet 'uv==0.13.8'

.venv/.ready: requirements/dev.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python "$$(command -v python3)" .venv
	$(UV) pip install --quiet --python $(PYTHON) --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --python $(PYTHON) --no-deps -e .
	@touch $@

lock: | $(UV) ## pin every dependency anew, with hashes and without index addresses
	$(UV) pip compile --quiet pyproject.toml --extra dev $(LOCK) -o requirements/dev.txt
	$(UV) pip compile --quiet pyproject.toml --extra operator --extra azure -c requirements/dev.txt $(LOCK) -o requirements/operator.txt
	$(UV) pip compile --quiet pyproject.toml --extra tuning --extra serving -c requirements/dev.txt $(LOCK) -o requirements/model.txt
LOCK := --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --no-emit-package kaito-hera

lint: .venv/.ready ## ruff, mypy strict, the layers of the folders
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

cluster-binaries: .venv/.ready ## build the Go programs of the one-machine cluster (no root needed)
	$(PYTHON) -m tests.cluster binaries

up: .venv/.ready ## build and start the one-machine cluster
	$(PYTHON) -m tests.cluster up $(CLUSTER)

down: .venv/.ready ## stop the one-machine cluster and remove every trace of it
	$(PYTHON) -m tests.cluster down $(CLUSTER)

golden: .venv/.ready ## write the generated files anew: the CRD, the examples' Workflows
	.venv/bin/kaito-hera crd > argo/crd.yaml
	@for file in $$(ls examples/*.yaml | grep -v '\.workflow\.yaml$$'); do \
		.venv/bin/kaito-hera render $$file > $${file%.yaml}.workflow.yaml || exit 1; done
