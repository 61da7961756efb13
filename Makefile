# Two commands do everything: `make up` and `make test`. Both install what they need into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
COLD_START := $(shell date +%s.%N)
UP_FLAGS ?= --detach
WINDOWS := mt5_actor_windows/install
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: help install install-dev up down status test lint format bench lock screenshots pictures clean

help:
	@echo "make up      install, start the cluster on a simulated market, print the URLs   (UP_FLAGS='...' to change how)"
	@echo "make down    end exactly what 'make up' started"
	@echo "make test    install, lint, type-check, run all tests"
	@echo "make bench   run the benchmarks; BENCH=startup runs one"
	@echo "make lint | format | status | lock | screenshots | pictures | clean"

install: .venv/.installed
install-dev: .venv/.installed-dev

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v[:2] != (3, 11) and f"Python 3.11 is needed; {sys.executable} is {v[0]}.{v[1]}. Run make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing the packages of requirements.lock into .venv (about two minutes, once) ..."
	@$(PIP) install --quiet -r requirements.lock
	@$(PIP) install --quiet --no-deps --editable .
	@touch $@

.venv/.installed-dev: requirements-dev.lock .venv/.installed
	@$(PIP) install --quiet -r requirements-dev.lock
	@touch $@

up: install
	@LSTMC_COLD_START=$(COLD_START) $(BIN)/lstmc up $(UP_FLAGS)

down:
	@$(BIN)/lstmc down

status:
	@$(BIN)/lstmc status

test: install-dev lint
	@tests/browser/install_chromium.sh
	@tests/edge/install_nginx.sh
	@tests/cluster/install_deploy_checks.sh
	@$(BIN)/python -m pytest tests

# Pictures for the docs, of the installation that is running.
screenshots: install-dev
	@tests/browser/install_chromium.sh
	@$(BIN)/python -m tests.browser.take_screenshots

# Pictures for the docs, of a report on recorded bars and one on simulated bars (docs/honesty.md says how to make both).
pictures: install-dev
	@tests/browser/install_chromium.sh
	@$(BIN)/python -m tests.browser.take_report_pictures --report $(or $(REPORT),out/report) --simulated $(or $(SIMULATED),out/simulated)

lint: install-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install
	@$(BIN)/lstmc bench $(or $(BENCH),startup) --json

# Resolve anew in an empty environment and write down what came out; for Windows by uv, which can resolve for another system.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet .
	{ echo '# Exact versions of what a Linux node runs. Made by `make lock`; pip installs it.'; build/lock/bin/pip freeze --exclude lstmc | sed 's/+cpu$$//'; } > requirements.lock
	build/lock/bin/pip install --quiet '.[dev]'
	{ echo '# Exact versions of what tests and linting add. Made by `make lock`; pip installs it.'; echo '-r requirements.lock'; build/lock/bin/pip freeze --exclude lstmc | sed 's/+cpu$$//' | grep -vxFf requirements.lock; } > build/dev.lock
	mv build/dev.lock requirements-dev.lock
	build/lock/bin/pip install --quiet uv
	{ echo '# Exact versions of what a Windows node runs (64-bit, Python 3.11). Made by `make lock`; install.ps1 installs it.'; build/lock/bin/uv --quiet pip compile $(WINDOWS)/requirements-windows.in --constraint requirements.lock --python-platform x86_64-pc-windows-msvc --python-version 3.11 --only-binary :all: --no-annotate --no-header; } > build/windows.lock
	mv build/windows.lock $(WINDOWS)/requirements-windows.lock

clean:
	rm -rf .venv build out .pytest_cache .mypy_cache .ruff_cache *.egg-info
