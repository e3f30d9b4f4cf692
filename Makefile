PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test cluster-test real lint types models adapters check bench pictures notebook clean

run: .venv/run.ok  ## start the dashboard on the bundled models
	$(BIN)/streamlit run app.py

test: .venv/test.ok  ## run every test, the browser tests too when a Chromium is found
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

real: .venv/run.ok  ## fetch a real language model, SmolLM2-135M, and add it (under 5 minutes)
	$(BIN)/python -m backend real

lint: .venv/test.ok
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache --no-logo

types: .venv/test.ok
	$(BIN)/mypy

models: .venv/run.ok  ## train the bundled models again (20 to 25 minutes)
	$(BIN)/python -m backend.bundled.train

adapters: real  ## train the adapters of SmolLM2 again (about an hour)
	$(BIN)/python -m backend.bundled.smollm2.train

cluster-test: .venv/cluster.ok  ## run the tests of several processes, on a Ray cluster of this computer
	$(BIN)/python -m pytest tests/cluster

check: .venv/run.ok  ## measure what the bundled models show
	$(BIN)/python -m backend.bundled.check

bench: .venv/test.ok  ## the engine against the obvious way; clicks and first paint in a browser; many sessions
	$(BIN)/python -m benchmarks.path_patching
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.browser
	$(BIN)/python -m benchmarks.load

pictures: .venv/test.ok  ## take the README's pictures from the running app (needs Chromium)
	$(BIN)/python -m docs.pictures

notebook: .venv/run.ok  ## make docs/notebook.ipynb of docs/notebook.py
	$(BIN)/python docs/to_notebook.py

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %s. Try: make PYTHON=python3.12 run" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/run.ok: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

.venv/test.ok: requirements-test.txt .venv/run.ok
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-test.txt
	touch $@

.venv/cluster.ok: requirements-cluster.txt .venv/test.ok
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-cluster.txt
	touch $@
