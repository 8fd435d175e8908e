# make demo    build, install and compare the methods on Old Faithful
# make test    the same, then all tests (make test PYTEST="-m 'not slow'" leaves out the slow ones)
# make dev     editable install in .venv: what is changed is compiled when vbfast is imported
#              (make dev LEVELS=v4 for one SIMD level, which is quicker)
# make lint    style and types
# make bench   time and memory beside other packages, in some minutes
# make dist    wheel and source distribution, in dist/
# make clean   remove what these made

PYTHON ?= python3
PYTEST ?=
LEVELS ?= v2,v3,v4
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := pyproject.toml meson.build $(shell find src -type f -not -name '*.pyc')

.PHONY: demo test dev lint bench dist clean

demo: $(VENV)/installed
	$(PY) -m vbfast compare

test: $(VENV)/installed $(VENV)/extra-test
	$(PY) -m pytest $(PYTEST)

bench: $(VENV)/installed $(VENV)/extra-bench
	$(PY) -m pytest bench

# The build folder stays, so that a change costs the modules that it touches.
dev: $(VENV)/extra-test
	$(PY) -m pip install --quiet "meson-python>=0.18" meson "Cython>=3.2" ninja
	BIN="$(CURDIR)/$(VENV)/bin"; CYTHON="$$BIN/cython" PATH="$$BIN:$$PATH" \
		$(PY) -m pip install --quiet --no-build-isolation -Cbuild-dir=build -Csetup-args=-Dlevels=$(LEVELS) -e ".[plot]"

lint: $(VENV)/extra-lint
	$(VENV)/bin/ruff check src tests bench
	$(VENV)/bin/ruff format --check src tests bench
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src
	$(VENV)/bin/codespell
	$(VENV)/bin/mypy

dist: $(VENV)/extra-dist
	$(PY) -m build

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(PY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vbfast needs Python >= 3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(PY) $(SOURCES)
	$(PY) -m pip install --quiet ".[plot]"
	touch $@

# The packages that a purpose needs beside vbfast: an extra of pyproject.toml.
$(VENV)/extra-%: $(PY) pyproject.toml
	$(PY) -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"]))' > $(VENV)/$*.txt
	$(PY) -m pip install --quiet -r $(VENV)/$*.txt
	touch $@
