# What a newcomer, a developer and CI type. Everything lives in .venv and build/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := deploy/requirements/dev.txt
STAMP := $(VENV)/.installed

.PHONY: demo setup test history mutants mutants-sample endings check format lint types layers chart protos tables lock bench bench-quota bench-operator images kind-up kind-down e2e clean

demo: setup ## watch every request of the walk-through answered as it should
	$(BIN)/clientpolicy demo

setup: $(STAMP) ## the environment only; leaves .venv/bin/clientpolicy

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: setup ## all tests, on a real Redis and a real Envoy; core and wire covered branch by branch
	@./tests/programs
	$(BIN)/coverage run -m pytest --durations=12 --durations-min=3 $(TESTS)
	$(BIN)/coverage report --include='authz/core/*,authz/wire/*' --fail-under=100 --skip-covered

history: setup ## a minute of each fault of Redis, every admitted call recorded, and the promised bound in every window
	@./tests/programs
	HISTORY_SECONDS=60 $(BIN)/pytest tests/history --durations=0 $(TESTS)

mutants: setup ## change each thing that decides, one at a time, and see a test notice; MODULES=authz/core/path.py for one
	PYTHONPATH=tests $(BIN)/python -m mutants $(MODULES)

mutants-sample: setup ## 300 of them, the same ones for the same code: what CI runs
	PYTHONPATH=tests $(BIN)/python -m mutants --sample 300

endings: setup ## end operator and authz 200 times each, at work, with every store; about an hour
	@./tests/programs
	ENDINGS=200 $(BIN)/pytest tests/test_endings.py

check: setup format lint types layers chart test ## what CI runs

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

chart: setup ## what can be told of the chart without a cluster: renderings, schemas, Pod Security, unit tests, alerts
	@./deploy/helm/check

images: ## authz, operator and trial, with docker, podman or buildah, whichever is there
	deploy/build-images

kind-up: ## from nothing to a partner's first call: cluster, images, chart, example, call
	deploy/kind-up

kind-down: ## remove that cluster
	deploy/kind-down

e2e: setup ## the end-to-end suite on the cluster of KUBECONFIG
	deploy/e2e $(TESTS)

protos: setup ## regenerate authz/wire/pb from protos/
	$(BIN)/python protos/generate.py

tables: setup ## regenerate authz/policy/fhir_r4.py from HL7's definitions
	PYTHONPATH=tools $(BIN)/python -m definitions

LOCKS := deploy/requirements
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11

lock: setup ## renew the locks after a change of pyproject.toml
	$(COMPILE) pyproject.toml --extra demo --extra operator --group dev --output-file $(LOCK)
	$(COMPILE) pyproject.toml --extra authz --constraint $(LOCK) --output-file $(LOCKS)/authz.txt
	$(COMPILE) pyproject.toml --extra operator --constraint $(LOCK) --output-file $(LOCKS)/operator.txt
	$(COMPILE) pyproject.toml --extra demo --constraint $(LOCK) --output-file $(LOCKS)/trial.txt
	echo "hatchling" | $(COMPILE) - --constraint $(LOCK) --output-file $(LOCKS)/build.txt
	echo "kubernetes-validate==1.37.0" | $(COMPILE) - --no-deps --output-file $(LOCKS)/schemas.txt

bench: setup ## CPU and latency of a Check beside an empty gRPC server, with memory and Redis, in one run
	@./tests/programs
	$(BIN)/python tests/bench/check.py

bench-quota: setup ## CPU of a quota decision in Redis, here and there, beside redis-py in one run
	@./tests/programs
	$(BIN)/python tests/bench/quota.py

bench-operator: setup ## 10,000 policies: operator and authz, against a real API server; about 15 minutes
	@./tests/programs
	$(BIN)/python tests/bench/scale.py
	$(BIN)/python tests/bench/authz_policies.py

clean:
	rm -rf $(VENV) build .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
