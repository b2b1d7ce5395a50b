# Every target sets up what it needs; CI calls only these.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The real model lives inside the checkout, so that nothing is left behind in a home folder.
export NEARSHORE_MODEL_DIR ?= $(CURDIR)/.cache/models
BUNDLE := $(NEARSHORE_MODEL_DIR)/all-MiniLM-L6-v2/bundle.json
PROTOS := $(wildcard proto/nearshore/v1/*.proto)
# Of the default tests: one more than two cores, for many tests wait for processes that they stop or freeze.
WORKERS ?= 3
# The first whose `info` answers: a docker client without its daemon builds nothing.
BUILDER ?= $(shell for each in docker podman buildah; do $$each info >/dev/null 2>&1 && echo $$each && break; done)
IMAGE ?= nearshore
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Releases of Helm that `make helm` builds and the chart is tested with.
HELM_3 := v3.22.0
HELM_4 := v4.3.1
# Without these, Helm 3 takes the cluster of its templates for Kubernetes 1.20.
HELM_3_FLAGS := $(foreach package,chartutil lint/rules,$(foreach part,Major=1 Minor=37,\
	-X helm.sh/helm/v3/pkg/$(package).k8sVersion$(part)))
BUILT_HELMS := $(abspath $(wildcard .cache/helm/*/helm))
EMPTY :=
ifneq ($(BUILT_HELMS),)
export HELM ?= $(subst $(EMPTY) $(EMPTY),:,$(BUILT_HELMS))
endif
COMPILE := pip-compile --quiet --no-header --generate-hashes --strip-extras --allow-unsafe --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help setup model demo proto docs check test test-slow test-chart test-node test-cluster prove bench bench-embed image chart helm lock format clean

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with exactly the locked packages
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nearshore needs Python 3.11 or later; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "The venv module of $(PYTHON) does not work (Debian: apt-get install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

model: $(BUNDLE) ## Obtain all-MiniLM-L6-v2 and export it
$(BUNDLE): | $(STAMP)
	$(BIN)/nearshore model get all-MiniLM-L6-v2

demo: $(STAMP) $(BUNDLE) ## Index the standard library's documentation and answer questions about it
	$(BIN)/nearshore demo

proto: $(STAMP) ## Generate the Python code of proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto --python_out=server \
		--mypy_out=quiet:server --grpc_python_out=server --mypy_grpc_out=quiet:server $(PROTOS)

docs: $(STAMP) ## Generate the references of settings, errors, metrics and log events
	$(BIN)/python -m nearshore.cli.reference docs

check: $(STAMP) ## Lint, types, and generated files that are stale
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	tests/check_generated.sh

test: $(STAMP) ## The default tests: no network, no corpora, under five minutes
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-slow: $(STAMP) $(BUNDLE) ## Kill -9 rounds, the real model, larger corpora: under forty minutes
	$(BIN)/python -m pytest tests/slow --timeout 2400 -rP

test-chart: $(STAMP) ## The chart alone: lint, templates, schemas of Kubernetes; needs Helm 3 or 4, on the PATH or as HELM=
	$(BIN)/python -m pytest tests/chart

test-node: $(STAMP) $(BUNDLE) ## The example for Node; needs node and npm
	@command -v npm >/dev/null || { echo "make test-node needs Node 18 or later, with npm"; exit 1; }
	npm ci --prefix examples/node
	$(BIN)/python -m pytest tests/node

test-cluster: $(STAMP) ## On the Kubernetes that KUBECONFIG names; tests/cluster/conftest.py says what else it needs
	$(BIN)/python -m pytest tests/cluster --timeout 3600 -rP

prove: $(STAMP) $(BUNDLE) ## Full corpora and rounds, by hand; NEARSHORE_TEST_DATA names the data
	$(BIN)/python -m benchmarks.prove $(STEPS)

bench: $(STAMP) $(BUNDLE) ## What the service adds to the bare model, paired
	$(BIN)/python -m benchmarks.service_overhead

bench-embed: $(STAMP) $(BUNDLE) ## How fast the engine embeds, beside scripts of ONNX Runtime alone, and a chart; a quarter of an hour
	$(BIN)/python -m benchmarks.embedding_speed --into docs/results/embedding.json

image: ## Build the image with docker, podman or buildah; IMAGE=, TAG=, BASE=, MODEL= (none: without a model)
	@[ -n "$(BUILDER)" ] || { echo "make image needs docker (with its daemon running), podman or buildah"; exit 1; }
	$(BUILDER) build --tag $(IMAGE):$(TAG) $(if $(BASE),--build-arg BASE=$(BASE)) \
		$(if $(filter-out undefined,$(origin MODEL)),--build-arg MODEL=$(MODEL)) .

chart: $(STAMP) ## Generate values, their schema and the manifests of k8s/; needs Helm, on the PATH or as HELM=
	$(BIN)/python -m helm.generate

helm: ## Build Helm 3 and 4 with Go, where they cannot be installed
	@command -v go >/dev/null || { echo "make helm needs Go; or install Helm: https://helm.sh/docs/intro/install"; exit 1; }
	GOBIN=$(CURDIR)/.cache/helm/3 go install -ldflags "$(HELM_3_FLAGS)" helm.sh/helm/v3/cmd/helm@$(HELM_3)
	GOBIN=$(CURDIR)/.cache/helm/4 go install helm.sh/helm/v4/cmd/helm@$(HELM_4)

lock: $(STAMP) ## Resolve the dependencies again
	$(BIN)/$(COMPILE) -o requirements.lock pyproject.toml
	$(BIN)/$(COMPILE) --extra dev -o requirements-dev.lock -c requirements.lock pyproject.toml
	$(BIN)/$(COMPILE) --only-build-deps --build-deps-for wheel -o requirements-build.lock -c requirements-dev.lock pyproject.toml

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove what the targets made
	rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
