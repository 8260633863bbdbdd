# PYTHON selects the interpreter: PYTHON=python3.12 make venv
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= runs/demo

.PHONY: venv demo test check test-long test-slow test-browser test-gpu servers peers format clean

venv: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "wootz needs Python 3.11 or newer; select one: PYTHON=python3.12 make venv"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: venv                      # protect, evaluate, extract, remove, verify, report
	rm -rf $(DEMO)
	$(BIN)/wootz demo --out $(DEMO)

test: check                     # every check and every default test

check: venv                     # format, lint, types, import contracts, tests
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

test-long: venv                 # trainings, killed and resumed runs, several processes, Ray; in CI too
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest -m long --numprocesses auto --dist loadfile --timeout 900

test-slow: venv                 # accuracy targets on the full data sets, many random draws; about an hour
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest -m slow --timeout 3600

test-browser: venv              # the report in a real browser (needs chromium)
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest -m browser

test-gpu: venv                  # training and evaluation on a GPU agree with the CPU (needs CUDA)
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest -m gpu

servers:                        # third-party servers for the slow tests and benchmarks/serve.py, each in its own environment
	PYTHON=$(PYTHON) scripts/servers.sh

peers: venv                     # libraries that benchmarks/ compares with
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers.txt

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venvs runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
