.PHONY: setup test bench clean help
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: .venv/.made ## .venv with the core, its tools and every plugin in the tree

.venv/.made: pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is older than 3.11; install it: apt-get install python3"; exit 1; }
	python3 -m venv .venv || { echo "venv is missing; install it: apt-get install python3-venv"; exit 1; }
	.venv/bin/pip install -q -e '.[dev]' $(foreach plugin,$(wildcard plugins/*/pyproject.toml),-e $(dir $(plugin)))
	touch $@

test: setup ## lint, types, every test, every wheel
	scripts/test

bench: setup ## side by side with HAProxy, nginx, Envoy, the kernel (ROUNDS=5 SECONDS=3 ONLY=bulk,udp PEERS=haproxy,marchproxy)
	scripts/bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS))

clean: ## remove what the other targets made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
