# make demo    build, install and compare the methods on Old Faithful
# make test    the same, then all tests at all SIMD levels, in 2 processes (make test WORKERS=8)
# make quick   tests that take a second or so, on a few examples each, at the best level, on what make dev made
# make dev     editable install in .venv: what is changed is compiled when vbfast is imported
#              (make dev LEVELS=v4 for one SIMD level, which is quicker)
# make lint    style and types
# make sanitize  tests of the kernels under address and undefined-behaviour sanitizers
# make fuzz    random data and parameters for every estimator (make fuzz CASES=20000 SEED=1)
# make bench   time and memory beside other packages, in some minutes
# make dist    wheel and source distribution, in dist/
# make clean   remove what these made

PYTHON ?= python3
PYTEST ?=
WORKERS ?= 2
LEVELS ?= v2,v3,v4
CASES ?= 2000
SEED ?= 0
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := pyproject.toml meson.build $(shell find src -type f -not -name '*.pyc')

.PHONY: demo test quick dev sanitize fuzz lint bench dist clean

demo: $(VENV)/installed
	$(PY) -m vbfast compare

test: $(VENV)/installed $(VENV)/extra-test
	$(PY) -m pytest -n $(WORKERS) --dist worksteal --levels=all $(PYTEST)

quick: $(VENV)/extra-test
	VBFAST_PROFILE=vbfast-few $(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST)

bench: $(VENV)/installed $(VENV)/extra-bench
	$(PY) -m pytest bench

# The build folder stays, so that a change costs the modules that it touches.
dev: $(VENV)/extra-test
	$(PY) -m pip install --quiet "meson-python>=0.18" meson "Cython>=3.2" ninja
	BIN="$(CURDIR)/$(VENV)/bin"; CYTHON="$$BIN/cython" PATH="$$BIN:$$PATH" \
		$(PY) -m pip install --quiet --no-build-isolation -Cbuild-dir=build -Csetup-args=-Dlevels=$(LEVELS) -e ".[plot]"

# A build of its own. What a sanitizer reports ends the process; leaks are Python's business. The
# sanitizers' libraries must come first, and hide what PYTHONMALLOC would take from them.
SANITIZED := .venv-sanitize
SANITIZE_TESTS ?= tests/kernels $(addprefix tests/estimators/test_, factorial.py many.py degenerate.py)

sanitize: $(SANITIZED)/installed
	for level in $$(echo $(LEVELS) | tr , ' '); do \
	  VBFAST_SIMD=$$level VBFAST_PROFILE=vbfast-few PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 \
	  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  $(SANITIZED)/bin/python -m pytest -q -n $(WORKERS) --dist worksteal --capture=sys -p no:cacheprovider -m "not slow" $(PYTEST) $(SANITIZE_TESTS) || exit 1; \
	done

$(SANITIZED)/installed: $(SOURCES)
	$(PYTHON) -m venv $(SANITIZED)
	$(SANITIZED)/bin/python -m pip install --quiet "meson-python>=0.18" meson "Cython>=3.2" ninja pytest pytest-xdist hypothesis scikit-learn matplotlib
	PATH="$(CURDIR)/$(SANITIZED)/bin:$$PATH" $(SANITIZED)/bin/python -m pip install --quiet --no-build-isolation \
	  -Cbuild-dir=build-sanitize -Csetup-args=-Dlevels=$(LEVELS) -Csetup-args=-Dbuildtype=debugoptimized \
	  -Csetup-args=-Doptimization=1 -Csetup-args=-Db_sanitize=address,undefined -Csetup-args=-Db_lundef=false .
	touch $@

fuzz: $(VENV)/installed $(VENV)/extra-test
	$(PY) tests/fuzz.py --cases $(CASES) --seed $(SEED)

lint: $(VENV)/extra-lint
	$(VENV)/bin/ruff check src tests bench
	$(VENV)/bin/ruff format --check src tests bench
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src
	$(VENV)/bin/codespell
	$(VENV)/bin/mypy

dist: $(VENV)/extra-dist
	$(PY) -m build

clean:
	rm -rf $(VENV) $(SANITIZED) build build-sanitize dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

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
