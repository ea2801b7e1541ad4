# Every target sets itself up: Python 3.11 or later, git and make are all it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Tests are single-process; XLA uses all cores by itself.
PYTEST := $(BIN)/python -m pytest
PARITY_VENV ?= .venv-parity
CHIPS_VENV ?= .venv-chips
CHIPS_PYTHON ?= python3.12
CHIPS_OUT ?= runs/chips
BENCH_OUT ?= runs/bench

.PHONY: demo test test-all parity lint bench chips clean help

help:
	@echo "make demo      render, prepare, train, evaluate, explain; prints the path of a report"
	@echo "make test      the tests (no torch); test-all adds the slow ones"
	@echo "make parity    the tests against torch and transformers"
	@echo "make lint      ruff and import-linter"
	@echo "make bench     throughput on this machine beside PyTorch's, in runs/bench"
	@echo "make chips     what the programs cost on GPUs and TPUs that are not here, in runs/chips"
	@echo "make clean     removes the environments and runs/demo"

# The stamp is newer than what it was made from, or it is made again.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"aver_jax needs Python 3.11 or later, found {v.major}.{v.minor}; set PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed
	@$(BIN)/aver demo --out runs/demo

test: $(VENV)/installed
	$(PYTEST) -m "not slow and not gpu"
	@$(MAKE) --no-print-directory lint VENV=$(VENV)

test-all: $(VENV)/installed
	$(PYTEST) -m "not gpu"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

# A second environment that sees the first one's packages, so that only torch and transformers are
# installed anew and the first stays free of them.
$(PARITY_VENV)/installed: $(VENV)/installed
	@echo "Setting up $(PARITY_VENV) (torch, transformers) ..."
	@test -x $(PARITY_VENV)/bin/python || $(BIN)/python -m venv $(PARITY_VENV)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' \
	  > "$$($(PARITY_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/base.pth"
	@$(PARITY_VENV)/bin/python -m pip --disable-pip-version-check --quiet install \
	  --constraint constraints.txt --editable '.[parity]'
	@touch $@

parity: $(PARITY_VENV)/installed
	$(PARITY_VENV)/bin/python -m pytest -m parity tests/parity -o addopts="--strict-config --strict-markers -ra --import-mode=importlib"

# At most 10 minutes on two cores that do nothing else, after installation. Cases that fail are
# named and end it with an error, after the sweeps, which do not depend on them.
bench: $(PARITY_VENV)/installed
	@code=0; \
	$(PARITY_VENV)/bin/python tools/bench_throughput.py --set reduced --repeats 9 --minutes 7 \
	  --out $(BENCH_OUT) || code=1; \
	$(PARITY_VENV)/bin/python -m aver_jax bench --set reduced --repeats 5 \
	  --sweep batch,frames,resolution,depth --out $(BENCH_OUT) || code=1; \
	exit $$code

$(CHIPS_VENV)/installed: pyproject.toml constraints.txt
	@command -v $(CHIPS_PYTHON) > /dev/null || { echo "make chips needs Python 3.12, found no $(CHIPS_PYTHON); set CHIPS_PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Setting up $(CHIPS_VENV) (compilers for chips, about 4 GB) ..."
	@test -x $(CHIPS_VENV)/bin/python || $(CHIPS_PYTHON) -m venv $(CHIPS_VENV)
	@$(CHIPS_VENV)/bin/python -m pip --disable-pip-version-check --quiet install \
	  --constraint constraints.txt --editable '.[chips]'
	@touch $@

# About half an hour on two cores; goes on where it was stopped.
chips: $(CHIPS_VENV)/installed
	@$(CHIPS_VENV)/bin/python tools/chips_table.py --out $(CHIPS_OUT)

clean:
	rm -rf $(VENV) $(PARITY_VENV) $(CHIPS_VENV) runs/demo
