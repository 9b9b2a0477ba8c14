# The developer's interface: `make help` lists the targets. Slow things are cached outside the clone: in $(CACHE), and where
# uv and Go keep theirs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CACHE ?= $(or $(KAITO_HERA_CACHE),$(HOME)/.cache/kaito-hera)
UV := $(CACHE)/tools/bin/uv
PYTHON := .venv/bin/python
PYTEST := .venv/bin/pytest
export KAITO_HERA_CACHE := $(CACHE)
export OMP_NUM_THREADS := 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------------- the Python environment

$(UV):
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null \
	  || { echo "python3 >= 3.11 with venv is missing: apt-get install python3 python3-venv" >&2; exit 1; }
	python3 -m venv $(CACHE)/tools
	$(CACHE)/tools/bin/pip install --quiet 'uv==0.13.8'

.venv/.ready: requirements/dev.txt pyproject.toml | $(UV)
	@echo "Python environment: 5.5 GB of packages into .venv, from the cache if they are there"
	@$(UV) venv --quiet --allow-existing --python "$$(command -v python3)" .venv
	@$(UV) pip install --quiet --python $(PYTHON) --require-hashes -r requirements/dev.txt
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps -e .
	@touch $@

LOCK := --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --no-emit-package kaito-hera
lock: | $(UV) ## pin every dependency anew, with hashes and without index addresses
	$(UV) pip compile --quiet pyproject.toml --extra dev $(LOCK) -o requirements/dev.txt
	$(UV) pip compile --quiet pyproject.toml --extra operator --extra azure -c requirements/dev.txt $(LOCK) -o requirements/operator.txt
	$(UV) pip compile --quiet pyproject.toml --extra tuning --extra serving -c requirements/dev.txt $(LOCK) -o requirements/model.txt

VLLM ?= $(shell sed -n 's/^ARG VLLM=.*:v//p' Dockerfile)
# vLLM may want a certifi of yesterday; nothing of its own is installed, so any will do here.
BESIDE := --python-platform x86_64-manylinux_2_28 --python-version 3.12 --override build/vllm-any.txt --no-header --no-annotate
lock-vllm: | $(UV) ## pin what the image serving-vllm needs beside what vLLM brings
	@mkdir -p build && echo certifi > build/vllm-any.txt && echo vllm==$(VLLM) > build/vllm.in
	@{ cat build/vllm.in; grep -o 'ray\[serve\]==[0-9.]*' pyproject.toml; } > build/vllm-ray.in
	$(UV) pip compile --quiet build/vllm.in $(BESIDE) -o build/vllm.out
	$(UV) pip compile --quiet build/vllm-ray.in $(BESIDE) -o build/vllm-ray.out
	comm -13 <(sort build/vllm.out) <(sort build/vllm-ray.out) > build/vllm-beside.in
	$(UV) pip compile --quiet --no-deps build/vllm-beside.in $(filter-out --universal --python-version 3.11,$(LOCK)) --python-version 3.12 -o requirements/vllm.txt

requirements/model-torch-$(TORCH).txt: requirements/model.txt pyproject.toml | $(UV)
	@mkdir -p build
	@grep -E '^[a-z0-9].*==' $< | grep -vE '^(torch|triton|nvidia-|cuda-)' | sed 's/ *\\$$//' > build/as-pinned.txt
	@echo 'torch==$(TORCH)' > build/torch.txt
	$(UV) pip compile --quiet pyproject.toml --extra tuning --extra serving -c build/as-pinned.txt --override build/torch.txt \
	  $(filter-out --upgrade,$(LOCK)) -o $@

lint: .venv/.ready ## ruff, mypy strict, the layers of the folders
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

golden: .venv/.ready ## write the generated files anew: the CRD and its page, the examples' Workflows and plans
	.venv/bin/kaito-hera crd > argo/crd.yaml
	.venv/bin/kaito-hera crd --reference > argo/WORKSPACE.md
	$(PYTHON) -m kaito_hera.admission --kind > argo/policy-kind.yaml
	$(PYTHON) -m kaito_hera.admission > argo/policy.yaml
	for file in $$(ls examples/*.yaml | grep -v '\.workflow\.yaml$$'); do \
	  .venv/bin/kaito-hera render $$file > $${file%.yaml}.workflow.yaml; done
	for file in $$(ls examples/*.yaml tests/workflows/plans/*.yaml | grep -v '\.workflow\.yaml$$'); do \
	  .venv/bin/kaito-hera plan $$file > tests/workflows/plans/$$(basename $${file%.yaml}).txt || [ $$? = 10 ]; done

# ---------------------------------------------------------------------- images and installation, for any cluster

ROLES ?= operator tuning serving
REGISTRY ?=
# Another torch than the pinned one, for older GPUs; what it has kernels for is found when an image is built, told at install.
TORCH ?=
MODEL := requirements/model$(if $(TORCH),-torch-$(TORCH)).txt
KERNELS = build/images/$(VERSION)/kernels.json
# What an image is made of names it, so that an image that changed never hides behind an old tag.
VERSION ?= $(shell find Dockerfile requirements/operator.txt requirements/vllm.txt $(MODEL) presets artifacts kaito_hera workflows tuning serving -type f ! -path '*/__pycache__/*' -print0 2>/dev/null | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
BASE ?= docker.io/library/python:3.11-slim-bookworm
BUILDER ?= $(if $(shell command -v buildah),buildah,docker)
AUTHFILE ?=
STORE := --root $(CACHE)/containers/storage --runroot $(CACHE)/containers/run --storage-driver overlay
BUILD_buildah = buildah $(STORE) build --quiet --layers --isolation chroot $(if $(wildcard $(SSL_CERT_FILE)),--volume $(SSL_CERT_FILE):/etc/ssl/certs/ca-certificates.crt:ro)
PUSH_buildah = buildah $(STORE) push --quiet $(if $(AUTHFILE),--authfile $(AUTHFILE)) $(PUSH_FLAGS)
BUILD_docker = docker build --quiet
PUSH_docker = docker push --quiet
BUILD = $(BUILD_$(BUILDER)) --build-arg BASE=$(BASE) --build-arg TORCH=$(TORCH)
KUBECTL ?= kubectl
OVERLAY ?= argo
PULL_SECRET ?=
CA_BUNDLE ?=

images: build-images push-images ## build and push the images: make images REGISTRY=myregistry.azurecr.io/kaito [TORCH=] [ROLES="... serving-vllm"]

build-images: registry-named $(MODEL)
	@$(if $(filter-out operator,$(ROLES)),$(BUILD) --target kernels --output $(dir $(KERNELS)) . >/dev/null)
	@for role in $(ROLES); do echo "image $(REGISTRY)/kaito-hera-$$role:$(VERSION)"; \
	  $(BUILD) --label "sh.kaito.hera.kernels=$$(cat $(KERNELS) 2>/dev/null)" --target $$role --tag $(REGISTRY)/kaito-hera-$$role:$(VERSION) . >/dev/null; done

push-images: registry-named
	@for role in $(ROLES); do echo "push $(REGISTRY)/kaito-hera-$$role:$(VERSION)"; \
	  $(PUSH_$(BUILDER)) $(REGISTRY)/kaito-hera-$$role:$(VERSION); done

version: $(MODEL) ## print the images' tag
	@echo $(VERSION)

model-version: $(MODEL)
	@cat Dockerfile $(MODEL) | sha256sum | cut -c1-12

registry-named:
	@test -n "$(REGISTRY)" || { echo "say where the images are: make $(MAKECMDGOALS) REGISTRY=myregistry.azurecr.io/kaito" >&2; exit 1; }

comma := ,
ADD = - {op: add$(comma) path: $1$(comma) value: $2}
define KUSTOMIZATION
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../$(OVERLAY)]
images:
  - {name: kaito-hera-operator, newName: $(REGISTRY)/kaito-hera-operator, newTag: "$(VERSION)"}
patches:
  - target: {kind: ConfigMap, name: kaito-hera-settings}
    patch: |
      $(call ADD,/data/registry,"$(REGISTRY)")
      $(call ADD,/data/version,"$(VERSION)")
      $(if $(wildcard $(KERNELS)),$(call ADD,/data/kernels,'$(file < $(KERNELS))'))
      $(if $(filter serving-vllm,$(ROLES)),$(call ADD,/data/vllmImage,"$(REGISTRY)/kaito-hera-serving-vllm:$(VERSION)"))
      $(if $(PULL_SECRET),$(call ADD,/data/pullSecret,"$(PULL_SECRET)"))
      $(if $(CA_BUNDLE),$(call ADD,/data/caBundle,"$(CA_BUNDLE)"))
  - target: {kind: Deployment, name: kaito-hera}
    patch: |
      # whatever is installed otherwise than before is read by a new operator
      $(call ADD,/spec/template/metadata/annotations,{installed: "HASH"})
      $(if $(PULL_SECRET),$(call ADD,/spec/template/spec/imagePullSecrets,[{name: "$(PULL_SECRET)"}]))
endef
export KUSTOMIZATION

install: registry-named ## apply argo/ with these images to kubectl's current context (PULL_SECRET=, CA_BUNDLE=, OVERLAY=)
	@mkdir -p build/install && echo "$$KUSTOMIZATION" > build/install/kustomization.yaml
	@# sorted, since kustomize has no fixed order for keys that mix letters and digits
	@hash="$$($(KUBECTL) kustomize build/install | sort | sha256sum | cut -c1-12)"; \
	echo "$$KUSTOMIZATION" | sed "s/\"HASH\"/\"$$hash\"/" > build/install/kustomization.yaml
	$(KUBECTL) apply --server-side --force-conflicts -f argo/policy-kind.yaml # an object needs its kind first
	@timeout 60 bash -c 'until $(KUBECTL) get presettables.hera.kaito.sh >/dev/null 2>&1; do sleep 0.2; done'
	$(KUBECTL) apply --server-side --force-conflicts -k build/install
	$(KUBECTL) -n kaito-hera rollout status deployment/kaito-hera --timeout=300s || \
	  { $(KUBECTL) -n kaito-hera logs -l app.kubernetes.io/name=kaito-hera --tail=3 >&2; exit 1; }

uninstall: ## remove the product; refuses while Workspaces exist, since they hold GPU nodes
	@crd="$$($(KUBECTL) get crd workspaces.kaito.sh --ignore-not-found -o name)"; \
	left="$$(test -z "$$crd" || $(KUBECTL) get workspaces.kaito.sh -A --no-headers)"; \
	if [ -n "$$left" ]; then printf 'delete these Workspaces first, they hold nodes that nobody would give back:\n%s\n' "$$left" >&2; exit 1; fi
	$(KUBECTL) delete --ignore-not-found -k argo

# ---------------------------------------------------------------------- the one-machine cluster

CLUSTER ?= demo

cluster-binaries: .venv/.ready ## build the cluster's Go programs and keep them in the cache
	$(PYTHON) -m tests.cluster binaries

up: .venv/.ready ## build and start the one-machine cluster
	$(PYTHON) -m tests.cluster up $(CLUSTER)

down: .venv/.ready ## stop the one-machine cluster and remove every trace of it
	$(PYTHON) -m tests.cluster down $(CLUSTER)

cluster-install: up ## build the images and install the product on the one-machine cluster
	@$(PYTHON) -m tests.e2e.install $(CLUSTER)

demo: cluster-install ## the main job: serve a model, tune it, and ask both the same question
	@$(PYTHON) -m tests.e2e.demo $(CLUSTER)

apiserver: .venv/.ready ## an API server alone that judges Workspaces; the last line printed is its kubeconfig
	@$(PYTHON) -m tests.cluster apiserver

apiserver-down: .venv/.ready ## stop that API server and forget what it stored
	@$(PYTHON) -m tests.cluster apiserver --down

# ---------------------------------------------------------------------- tests

test: packages lint test-plain test-apiserver test-torch test-e2e ## everything

packages: .venv/.ready ## what the tests and the cluster need of Debian, once, as root
	@$(PYTHON) -m tests.cluster packages

test-plain: .venv/.ready ## what needs neither torch nor a cluster: pure functions, goldens, real registries (6 minutes)
	$(PYTEST) -m "not apiserver and not torch and not e2e"

test-apiserver: cluster-binaries ## the operator against a real API server
	$(PYTEST) -m apiserver

test-torch: .venv/.ready ## tiny real models: training learns, serving answers
	$(PYTEST) -m torch

test-e2e: cluster-install ## the whole on the one-machine cluster
	KAITO_HERA_CLUSTER=$(CLUSTER) $(PYTEST) -m e2e

KAITO ?=
WRITE ?=
conformance: .venv/.ready ## judge KAITO's own manifests, of every release: make conformance KAITO=a-clone [WRITE=yes]
	@test -n "$(KAITO)" || { echo "say where a clone of KAITO's repository is: make conformance KAITO=/path/to/kaito.git" >&2; exit 1; }
	@$(PYTHON) -m tests.conformance $(KAITO) $(if $(WRITE),--write)
	@$(PYTHON) -m tests.tuning.data.kaito_templates $(KAITO)

# The torch is the project's own, which is in uv's cache already; the rest is of the time of KAITO's first tuning image.
build/peft-0.11.1/.ready: | $(UV)
	$(UV) venv --quiet --clear --python 3.11 build/peft-0.11.1
	$(UV) pip install --quiet --python build/peft-0.11.1/bin/python peft==0.11.1 transformers==4.44.2 'accelerate<1' 'numpy<2' \
	  $$(grep -o '^torch==[0-9.]*' requirements/dev.txt) || { echo "peft 0.11.1 cannot be installed, so that nothing was" \
	  "held against it: see whether the package index has Python 3.11's wheels of what is named above" >&2; exit 1; }
	@touch $@

peft-eras: .venv/.ready build/peft-0.11.1/.ready ## does peft 0.11.1, which KAITO's first images have, read our adapters?
	OMP_NUM_THREADS=1 $(PYTEST) tests/tuning/training/peft_eras.py

agreement: cluster-binaries ## do CEL and Python judge 3,000 generated Workspaces alike? (a minute; test-apiserver takes some of them)
	KAITO_HERA_AGREEMENT=3000 $(PYTEST) tests/apiserver/test_agreement.py

KILLS ?= 50
chaos-tuning: .venv/.ready ## kill training at any moment: are the adapters the same, bit for bit? (20 minutes)
	@$(PYTHON) -m tests.bench.chaos --kills $(KILLS)

STORM ?= 60
chaos-serving: .venv/.ready ## ten times overload, SIGTERM under streams, sudden deaths, changing adapters: are the bars met? (10 minutes)
	@$(PYTHON) -m tests.bench.serving.chaos --seconds $(STORM)

bench-admission: cluster-binaries ## what the admission policies add to a create
	@$(PYTHON) -m tests.bench.admission

bench-engine: .venv/.ready ## the engine against transformers' generate, in one process (10 minutes)
	@OMP_NUM_THREADS=1 $(PYTHON) -m tests.bench.engine

equal-serving: .venv/.ready ## do 500 requests, with adapters in every mix, get the tokens of transformers and peft? (5 minutes)
	@OMP_NUM_THREADS=1 $(PYTHON) -W ignore::FutureWarning -m tests.bench.equal

bench-pipeline: cluster-install ## apply to first answer, and how much of it is ours
	@$(PYTHON) -m tests.bench.pipeline $(CLUSTER)

bench-plan: .venv/.ready ## what `kaito-hera plan` costs a machine
	@$(PYTHON) -m tests.bench.plan

AWAY ?= 300
bench-push: .venv/.ready ## what the push of a 400 MB adapter weighs, sends twice, and bears
	@$(PYTHON) -m tests.bench.push --away $(AWAY)

PAIRS ?= 5
bench-serving: .venv/.ready ## our server against /chat as KAITO did it, over HTTP (20 minutes)
	@$(PYTHON) -m tests.bench.serving --pairs $(PAIRS)

bench-watcher: cluster-binaries ## what the watcher weighs and writes at rest
	@$(PYTHON) -m tests.bench.watcher

bench-tuning: .venv/.ready ## tuning against KAITO's way: what is learned, rows per CPU second, memory, the loop's own cost (PAIRS=5)
	@$(PYTHON) -m tests.bench.tuning --pairs $(PAIRS)

.PHONY: $(shell awk -F: '/^[a-z0-9-]+:/ { print $$1 }' $(firstword $(MAKEFILE_LIST)))
