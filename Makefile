# Every target sets up what it needs by itself, from a fresh clone, with Python 3.11 and pip alone.
# ARGS="…" goes to the command; NAME=x chooses a benchmark.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-quick test-system check chaos bench drill docs install-demo install-dev clean

demo: install-demo  ## the whole loop on this machine: make demo ARGS="--once --report demo.json"
	$(BIN)/tao-daemon demo $(ARGS)

test: install-dev  ## unit, property, contract, integration and end-to-end tests on real components
	$(BIN)/python -m pytest -m "not chaos" $(ARGS)

test-quick: install-dev  ## what needs no model server
	$(BIN)/python -m pytest -m "not vllm and not chaos" $(ARGS)

test-system: install-dev  ## a real Prometheus, Alertmanager and browser; installs these packages
	bash deploy/system-packages.sh
	$(BIN)/python -m pytest tests/system $(ARGS)

check: install-dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check tao_daemon tests bench grafana
	$(BIN)/ruff format --check tao_daemon tests bench grafana
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: install-dev  ## kill -9 in every phase, and other slow proofs
	$(BIN)/python -m pytest -m chaos tests $(ARGS)

bench: install-dev  ## make bench NAME=x runs bench/x and writes bench/results/x.json
	$(BIN)/python -m bench.$(NAME) $(ARGS)

drill: install-dev  ## you are on call: an adapter goes bad, the alerts page; make drill ARGS=--undo does it without you
	bash deploy/system-packages.sh
	$(BIN)/python -m bench.drill $(ARGS)

docs: install-dev  ## what is generated: config.toml, docs/cli.md, docs/metrics.md, grafana/dashboards
	$(BIN)/python -m tao_daemon.config.reference > config.toml
	$(BIN)/python -m tao_daemon.cli.reference > docs/cli.md
	$(BIN)/python -m tao_daemon.telemetry.catalogue > docs/metrics.md
	$(BIN)/python -m grafana.builder

install-demo:
	@bash deploy/install.sh demo $(VENV) $(PYTHON)

install-dev:
	@bash deploy/install.sh dev $(VENV) $(PYTHON)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
