#!/usr/bin/env bash
# Everything there is to test on a machine with a GPU, from a bare checkout and without a network: builds the
# libraries, checks the kernels against their definition, again under each of compute-sanitizer's tools,
# then runs every test that has to do with CUDA. Nothing is skipped for want of a GPU.
#
# Wants nvcc, compute-sanitizer, and a PYTHON (python3 by default) with a CUDA torch, setuptools, ninja, pytest,
# pytest-xdist and hypothesis.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
NVCC=${NVCC:-nvcc}
JOBS=${JOBS:-8}
export CIRCULANT_ATTENTION_CUDA=1

step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }

step "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
"$NVCC" --version | tail -n 2
sanitizer=$(command -v compute-sanitizer) ||
  sanitizer=$(dirname "$(readlink -f "$(command -v "$NVCC")")")/compute-sanitizer
if [ ! -x "$sanitizer" ]; then
  echo "compute-sanitizer was not found: put it on PATH" >&2
  exit 1
fi

step "build"
"$PYTHON" setup.py -q build_ext --inplace

step "kernels against their definition"
include=$("$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "include")')
mkdir -p build/cuda
kernels=$(find csrc/cuda -name '*.cu' ! -name ops.cu)
# shellcheck disable=SC2086  (the names of the kernels are words of their own)
"$NVCC" -std=c++17 -O2 -lineinfo -arch=native -isystem "$include" -o build/cuda/check \
  tests/cuda_on_host/check.cpp $kernels
build/cuda/check

for tool in memcheck racecheck synccheck; do
  step "$tool"
  "$sanitizer" --tool "$tool" --error-exitcode 1 build/cuda/check part=random cases=12
done

step "tests"
OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses "$JOBS" --require-cuda -k cuda \
  --ignore tests/test_cuda_build.py --ignore tests/test_cuda_on_host.py tests parity

step "done"
