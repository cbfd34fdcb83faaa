# Two commands: `make demo` shows the product on a toy corpus, `make test` checks it. Both set up .venv first; once that is
# done neither needs the network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: install demo test lint corpus chaos clean
install: $(VENV)/installed

demo: install
	$(BIN)/python -m jobs.self_train experiment=toy

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -m "not chaos and not corpus" --durations=10

corpus: install
	$(BIN)/pytest tests/media/test_hostile.py

chaos: install
	$(BIN)/pytest -m chaos --durations=10

clean:
	rm -rf $(VENV) outputs
