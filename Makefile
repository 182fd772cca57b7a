# `make demo` and `make test` set up all that they need: a virtual environment with pinned packages.
# make demo RAW=DIR takes the publisher's own MovieLens files; make PYTHON=python3.12 ... another Python.
PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)
	$(VENV)/bin/python examples/demo.py --out build/demo$(if $(RAW), --raw $(RAW))

# One worker a core; a module's tests stay together, because they share fixtures.
test: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist loadscope

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(READY): requirements.lock setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) build
