PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
PY     := $(VENV)/bin/python
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
STAGE  ?= all

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

$(VENV)/.stamp: setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error  Python 3.11 or newer was not found; install it or call make PYTHON=/path/to/python3"; exit 6; }
	@"$(PYTHON)" -c 'import sys; sys.exit("error  Python %d.%d is too old: 3.11 or newer is needed; call make PYTHON=/path/to/python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

install: $(VENV)/.stamp  ## create .venv and install hftoolkit with the pinned versions

quickstart: $(VENV)/.stamp  ## train, evaluate, generate, export on built-in data (STAGE=gpt chooses one stage)
	$(OFFLINE) $(PY) -m hftoolkit.cli quickstart --stage $(STAGE)

test: $(VENV)/.stamp  ## the tests
	$(OFFLINE) OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 -m "not slow and not gpu and not network"

test-export: $(VENV)/.stamp  ## only the tests that load models without hftoolkit
	$(OFFLINE) OMP_NUM_THREADS=1 $(PY) -m pytest -q -m export

test-slow: $(VENV)/.stamp  ## the tests that take minutes
	$(OFFLINE) OMP_NUM_THREADS=1 $(PY) -m pytest -q -m slow

test-gpu: $(VENV)/.stamp  ## the tests that need a CUDA device
	$(PY) -m pytest -q -m gpu

check: $(VENV)/.stamp  ## formatting, lint, imports between the floors
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/test_floors.py

format: $(VENV)/.stamp  ## format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install quickstart test test-export test-slow test-gpu check format
