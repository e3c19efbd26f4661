# `make demo` and `make test` do everything that they need in a fresh clone: an environment of their
# own (.venv), the pinned versions of requirements.txt, the compiled package. They want Python >= 3.10,
# make and a C++17 compiler. Nothing is done twice: what is up to date is left as it is.
#
#   make demo          denoise a photograph, print what it did, write denoised.png
#   make test          the checks, the documentation and the tests
#   make test-thorough the tests that take long: the CUDA kernels, compiled, executed on the host and
#                      with planted defects, sanitizers, every instruction set, the trainings
#   make lint          ruff, mypy and clang-format, in check mode
#   make docs          the documentation, with its examples run, in docs/_build/html
#   make bench         every benchmark, into benchmarks/results (an hour or so)
#   make bench-kernels the speed of the CPU kernels against the peak, into benchmarks/results
#   make bench-windows other windows against circular ones, into benchmarks/results; with
#                      BEFORE=LIBRARY also circular windows beside the CPU library of another commit
#   make test-cuda     every test on a GPU: build, kernels, the suite, compute-sanitizer; no network
#   make bench-cuda    the benchmarks on a GPU, into benchmarks/results/cuda.{json,md}; no network
#   make bench-quick   a few benchmarks, printed only
#   make wheel         the source distribution and a manylinux wheel with CPU and CUDA libraries, into
#                      dist; needs nvcc, or: make CIRCULANT_ATTENTION_CUDA=0 wheel
#   make test-wheel    test that wheel in a fresh environment with the oldest and the newest torch (each
#                      several GB), or another: make TORCH=torch==2.12.0 test-wheel
#   make test-aarch64  the CPU kernels on 64-bit Arm, cross-compiled, in an emulator; needs Debian's
#                      g++-aarch64-linux-gnu and qemu-user-static
#   make test-compilers the CPU library with each C++ compiler of this machine, warnings as errors
#   make format        rewrite the sources as the checks want them
#   make clean         remove what was built; `make distclean` also removes the environment
#
# PYTHON chooses the interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
# 1 compiles the CUDA library as well, which takes minutes; `pip install .` does whenever it finds nvcc.
export CIRCULANT_ATTENTION_CUDA ?= 0
VENV ?= .venv
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

BIN := $(VENV)/bin
# An environment made by another Python release has no such stamp, so it is made anew.
RELEASE := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ENVIRONMENT := $(VENV)/.python-$(RELEASE)
REQUIREMENTS := $(VENV)/.requirements
PACKAGE := $(VENV)/.package

NATIVE := $(shell find csrc tests benchmarks -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: all demo test test-thorough lint docs bench bench-kernels bench-windows bench-quick wheel test-wheel test-aarch64 test-compilers format clean distclean

all: $(PACKAGE)

$(ENVIRONMENT):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed, and $(PYTHON) is %s: try make PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(REQUIREMENTS): requirements.txt $(ENVIRONMENT)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(PACKAGE): pyproject.toml setup.py $(shell find csrc third_party -type f) $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

demo: $(PACKAGE)
	$(BIN)/python -m circulant_attention

# One torch thread per worker; the tests of threading set their own number. pytest comes last, so that
# what is seen last is the number of tests.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --emulated

test: lint docs
	$(PYTEST) -m "not thorough" tests parity

test-thorough: $(PACKAGE)
	$(PYTEST) -m thorough tests

lint: $(PACKAGE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

format: $(PACKAGE)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

# A warning is an error (-W), and so is a reference to nothing (-n). The examples are small: threads
# would wait for each other most of the time. Both builders read the pages once (-d).
SPHINX = OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W -n --keep-going -q -d docs/_build/doctrees
docs: $(PACKAGE)
	$(SPHINX) -b html docs docs/_build/html
	$(SPHINX) -b doctest docs docs/_build/doctest

bench: bench-kernels
	$(BIN)/python -m benchmarks --output benchmarks/results/cpu

bench-kernels: $(PACKAGE)
	$(BIN)/python -m benchmarks.kernels --output benchmarks/results/kernels

bench-windows: $(PACKAGE)
	$(BIN)/python -m benchmarks.windows $(if $(BEFORE),--before $(BEFORE)) --output benchmarks/results/windows

# On a machine with a GPU. These take PYTHON as it is, with its CUDA torch, instead of making an
# environment; the scripts say what is missing.
test-cuda:
	PYTHON=$(PYTHON) tests/native/run_cuda.sh

bench-cuda:
	PYTHON=$(PYTHON) benchmarks/cuda/run.sh

bench-quick: $(PACKAGE)
	$(BIN)/python -m benchmarks --quick

wheel: CIRCULANT_ATTENTION_CUDA = 1
wheel:
	tests/native/wheel/build $(PYTHON)

test-wheel:
	tests/native/wheel/run $(PYTHON) $(TORCH)

test-aarch64: $(REQUIREMENTS)
	PYTHON=$(BIN)/python tests/native/aarch64/run.sh

test-compilers: $(PACKAGE)
	PYTHON=$(BIN)/python tests/native/compilers.sh

clean:
	rm -rf build dist *.egg-info docs/_build docs/generated $(PACKAGE)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f circulant_attention/*.so circulant_attention/*.dylib
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
