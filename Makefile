# Switchover: `make demo` runs the main job, `make test` all tests. Both set up what they need in .venv.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
SOURCES := $(shell find migrate_core python -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml

.PHONY: help demo test bench studies lint format docs clean tools

help:                ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/built  ## Migrate a running key-value store under several policies; reports go to reports/
	$(BIN)/switchover demo --reports reports

test: $(VENV)/built  ## Run all tests of the core and the package
	cargo test --quiet -p migrate_core --all-features
	$(BIN)/python -m pytest -n 2

bench: $(VENV)/built ## Print the table of speeds, as ratios taken in the same run
	$(BIN)/python benches/table.py

studies: $(VENV)/built ## Make the studies of docs/studies anew, from recorded traces (half an hour)
	$(BIN)/python benches/studies/clear_disciplines.py
	$(BIN)/python benches/studies/compression.py
	$(BIN)/python benches/studies/kubevirt_stall.py
	$(BIN)/python benches/studies/not_converging.py

lint: $(VENV)/built  ## Check formats, lints, types and stubs
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest switchover._native

format:              ## Format all sources
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/ready  ## Build the site and the core's API documentation, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet -p migrate_core --no-deps

clean:               ## Remove everything that was built
	rm -rf $(VENV) target reports

tools:
	@scripts/require-tools

$(VENV)/ready: requirements-dev.txt | tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/built: $(VENV)/ready $(SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/maturin develop --quiet --release
	@touch $@
