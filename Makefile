.PHONY: run setup test bench lab clean help
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

run: setup ## the proxy on examples/first.yaml with demo backends behind it, until Ctrl-C (FILE=other.yaml)
	@scripts/run $(if $(FILE),'$(FILE)')

setup: ## .venv with the core, its tools and every plugin in the tree (PYTHON=python3.12)
	@scripts/setup

test: setup ## lint, types, every test, every wheel
	scripts/test

bench: setup ## side by side with HAProxy, nginx, Envoy, Traefik, Caddy, the kernel (ROUNDS=5 SECONDS=3 ONLY=bulk,packets,http PEERS=haproxy,marchproxy)
	scripts/bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS))

lab: ## emulated network hardware: SR-IOV, native XDP, an IOMMU (RUN='ip -br link' runs a command on it)
	@scripts/hwlab setup
	@$(if $(RUN),scripts/hwlab run bash -c "$$RUN",scripts/hwlab help)
lab: override export RUN := $(value RUN)

clean: ## remove what the other targets made
	rm -rf .venv $(foreach dist,. plugins/*,$(dist)/build $(dist)/dist $(dist)/*.egg-info) .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/suites/*/node_modules
