PYTHON ?= python3
VENV   ?= .venv
# Another Triton or TensorLy than that of constraints.txt gets an environment of its own.
OTHERS := $(strip $(TRITON:%=triton==%) $(TENSORLY:%=tensorly==%))
ifdef OTHERS
override VENV := $(VENV)-$(subst $() ,-,$(subst ==,-,$(OTHERS)))
endif
PY      = $(VENV)/bin/python
READY   = $(VENV)/.$(if $(OTHERS),test,dev)-ready
# The demo needs little, and is content with more where that is there already.
DEMO    = $(or $(wildcard $(READY)),$(VENV)/.demo-ready)
# What begins with _ is a part of them.
EXAMPLES = $(abspath $(filter-out examples/_%,$(wildcard examples/*.py)))
# A process for each core: a test keeps to one thread.
SPREAD  = --numprocesses=auto --maxprocesses=8

help:                   ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16
demo: $(DEMO)           ## decompose a hyperspectral image, and draw what was found
	$(PY) examples/indian_pines.py
examples: $(DEMO)       ## run every example, in build/examples/
	mkdir -p build/examples
	cd build/examples && for example in $(EXAMPLES); do $(abspath $(PY)) $$example || exit 1; done
test: $(READY)          ## tests and doctests, with coverage
	$(PY) -m pytest $(SPREAD) --cov --ignore=tests/kernels/compile
	TRITON_INTERPRET=1 $(PY) -m pytest $(SPREAD) tests/kernels/interpret
	$(PY) -m pytest tests/kernels/compile
	$(PY) tests/backends/tensorly/suite/run.py --quick
test-compile: $(READY)  ## only the kernels, compiled for GPUs that are not there (TRITON=3.6.0)
	$(PY) -m pytest tests/kernels/compile
test-interpret: $(READY) ## only the kernels, under Triton's interpreter
	TRITON_INTERPRET=1 $(PY) -m pytest $(SPREAD) tests/kernels/interpret
test-tensorly: $(READY) ## TensorLy's own tests by our backend for it, and by its own (TENSORLY=0.9.0)
	$(PY) tests/backends/tensorly/suite/run.py
	$(if $(TENSORLY),$(PY) -m pytest $(SPREAD) tests/backends)
test-slow: $(READY)     ## only the tests that take long, or many gigabytes
	$(PY) -m pytest -m slow --slow
test-gpu: $(READY)      ## only the tests that need a GPU
	$(PY) -m pytest -m gpu
lint: $(READY)          ## style, without changing a file
	$(PY) -m ruff check . && $(PY) -m ruff format --check .
format: $(READY)        ## style, changing files
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .
type: $(READY)          ## type annotations
	$(PY) -m mypy
bench: $(READY)         ## measure against the other libraries
	$(PY) bench/run.py
gpu:                    ## all that takes an NVIDIA GPU, by the Python at hand (WHEELS=dir OUT=dir)
	$(PYTHON) bench/gpu.py $(if $(WHEELS),--wheels $(WHEELS)) $(if $(OUT),--out $(OUT))
wheel: $(READY)         ## sdist and wheel, in dist/
	rm -rf build dist && $(PY) -m build
clean:                  ## remove what the tasks made, but not the virtual environment
	rm -rf build dist *.egg-info .coverage .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache

# A mark for each set of extras that was installed. torch for CUDA asks for one version of Triton and
# works with others.
$(VENV)/.%-ready: constraints.txt pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	$(if $(OTHERS),$(PY) -m pip install --quiet --disable-pip-version-check --no-deps $(OTHERS))
	touch $@

.PHONY: help demo examples test test-compile test-interpret test-tensorly test-slow test-gpu lint format type bench gpu wheel clean
