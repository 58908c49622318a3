# Every target sets up what it needs, once; see `make help`.

PYTHON ?= python3
# Given on the command line or in the environment, it makes a new .venv where that has another.
ANY_PYTHON := $(if $(filter file,$(origin PYTHON)),,--any-python)
TORCH_INDEX_URL ?=
export TORCH_INDEX_URL

RUN := .venv/bin/hpctrain
PROVIDER ?= lab
NODES ?= 2
NAME ?= $(PROVIDER)
# Further options of `hpctrain cluster up`, such as '--latency 1ms'.
CLUSTER_ARGS ?=
# Tests that need what is missing are skipped; those named in HPCTRAIN_REQUIRE fail instead.
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo bench cluster cluster-down test test-deps bench-peers bench-core lint clean

help: ## List the targets and variables
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables:"
	@echo "  PYTHON           interpreter for a new .venv, 3.10 or later (now: $(PYTHON))"
	@echo "  TORCH_INDEX_URL  index to take torch from, such as https://download.pytorch.org/whl/cpu"
	@echo "                   (default: a CPU build without an NVIDIA device, else PyPI's CUDA build)"
	@echo "  PROVIDER, NODES, NAME   of a cluster (now: $(PROVIDER), $(NODES), $(NAME)); more: CLUSTER_ARGS"
	@echo "  PYTEST_ARGS      further arguments for pytest, such as '-k hosts'"

setup: ## Create or update .venv: pinned packages, torch, an MPI, hpctrain, Horovod
	@$(PYTHON) tools/bootstrap.py $(ANY_PYTHON)

demo: setup ## Train a small transformer on this machine: 2 ranks, mpirun, Horovod, real text
	@$(RUN) data prepare --source stdlib --tokenizer bytes --out data/stdlib-bytes
	@$(RUN) run --np 2 --config demo --oversubscribe
	@echo "Next: . .venv/bin/activate; hpctrain preflight; hpctrain run --np 2 -- python your_script.py"

bench: setup ## Measure how the demo scales on this machine, with a report in benches/ (2 min)
	@test -e data/stdlib-bytes/index.json || \
	    $(RUN) data prepare --source stdlib --tokenizer bytes --out data/stdlib-bytes
	@$(RUN) bench --np 1,2 --config demo --oversubscribe

cluster: setup ## Make a cluster and ./hostfile: PROVIDER=lab (on this machine, root) NODES=2
	@test -e data/stdlib-bytes/index.json || \
	    $(RUN) data prepare --source stdlib --tokenizer bytes --out data/stdlib-bytes
	@$(RUN) cluster up --provider $(PROVIDER) --name $(NAME) --nodes $(NODES) $(CLUSTER_ARGS)

cluster-down: setup ## Remove the cluster and all that belongs to it
	@$(RUN) cluster down --name $(NAME)

test: ## Run every test that this machine can run; say what was skipped and why
	@$(PYTHON) tools/bootstrap.py $(ANY_PYTHON) --test
	@.venv/bin/python -m pytest $(PYTEST_ARGS)

test-deps: ## Install the system packages that some tests need (root; asks unless YES=1 or CI=true)
	@$(PYTHON) tools/test_deps.py

bench-peers: setup ## Race the training core against plain Horovod and DDP (quiet machine, 15 min)
	@.venv/bin/python benchmarks/peers.py --out benchmarks/results/peers.json

bench-core: setup ## Measure the training core, into benchmarks/results (quiet machine, 45 min)
	@cd benchmarks && for line in \
	    "checkpoint_stall.py --np 2 --rounds 21 --out results/checkpoint-stall.json" \
	    "loader.py --out results/loader.json" \
	    "loader.py --waiting --out results/loader-waiting.json" \
	    "precision.py --out results/precision.json" \
	    "bare.py --out results/everything-on.json" \
	    "peers.py --out results/peers.json"; \
	do echo "== $$line"; ../.venv/bin/python $$line || exit 1; done

lint: ## Check style and common mistakes
	@$(PYTHON) tools/bootstrap.py $(ANY_PYTHON) --test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

clean: ## Remove .venv, caches and build leftovers; keep data/, runs/, benches/
	@echo "removes: .venv .cache build dist *.egg-info .pytest_cache .ruff_cache __pycache__"
	@echo "keeps:   data/ runs/ benches/, and built wheels in ~/.cache/hpctrain"
	@rm -rf .venv .cache build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find hpctrain tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
