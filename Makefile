# Two commands for a newcomer: `make quickstart` and `make test`. Both set everything up, and go on from what is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test setup lint types bench clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   set up and run the main job, small: about half an hour on two cores"
	@echo "make test         set up and run the tests"
	@echo "make lint types   ruff and mypy"
	@echo "make bench        speed against peers"

$(STAMP): pyproject.toml constraints.txt tools/system-packages.sh
	bash tools/system-packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	touch $@

setup: $(STAMP)

quickstart: $(STAMP)
	$(BIN)/emt quickstart

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	for file in bench/*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) runs
