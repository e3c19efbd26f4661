#!/usr/bin/env bash
# Every test on a GPU, from a bare checkout and without a network: builds the libraries for that GPU, checks the
# kernels against their definition, runs every test that concerns CUDA, then the check again under each of
# compute-sanitizer's tools. No test is skipped for lack of a GPU. Failures are listed at the end.
#
# Needs nvcc, compute-sanitizer, and a PYTHON (python3 by default) with a CUDA torch, setuptools, ninja, pytest,
# hypothesis, matplotlib, scikit-image and imagecodecs. With pytest-xdist the tests run in JOBS processes.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
NVCC=${NVCC:-nvcc}
JOBS=${JOBS:-8}
export CIRCULANT_ATTENTION_CUDA=1 CIRCULANT_ATTENTION_ARCHITECTURES=native

step() { printf '\n== %s (after %d s)\n' "$1" "$SECONDS"; }

step "machine"
"$PYTHON" tests/native/cuda_machine.py pytest hypothesis matplotlib skimage imagecodecs
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
"$NVCC" --version | tail -n 2
sanitizer=$(command -v compute-sanitizer) ||
  sanitizer=$(dirname "$(readlink -f "$(command -v "$NVCC")")")/compute-sanitizer
if [ ! -x "$sanitizer" ]; then
  echo "missing: compute-sanitizer, part of the CUDA toolkit: put it on PATH" >&2
  exit 1
fi

step "build"
"$PYTHON" setup.py -q build_ext --inplace

step "kernels against their definition"
include=$("$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "include")')
mkdir -p build/cuda
objects=()
for source in tests/native/cuda_on_host/check*.cpp csrc/cuda/*.cu; do
  [[ $source == csrc/cuda/*ops.cu ]] && continue
  objects+=("build/cuda/$(basename "$source").o")
  "$NVCC" -x cu -std=c++17 -O2 -lineinfo -arch=native --expt-relaxed-constexpr -isystem "$include" \
    -c "$source" -o "${objects[-1]}" &
  compilers+=($!)
done
for compiler in "${compilers[@]}"; do wait "$compiler"; done
"$NVCC" -arch=native -o build/cuda/check "${objects[@]}"
failed=()
build/cuda/check || failed+=("kernels")

step "tests"
processes=()
if "$PYTHON" -c 'import xdist' 2>/dev/null; then processes=(--numprocesses "$JOBS"); fi
OMP_NUM_THREADS=1 "$PYTHON" -m pytest "${processes[@]}" --require-cuda -k cuda \
  --ignore tests/native/test_cuda_build.py --ignore tests/native/test_cuda_on_host.py tests parity || failed+=("tests")

for tool in memcheck racecheck synccheck; do
  step "$tool"
  for part in random attention-random biased-random mma-random; do
    "$sanitizer" --tool "$tool" --error-exitcode 1 build/cuda/check "part=$part" cases=12 || failed+=("$tool $part")
  done
done

if [ ${#failed[@]} -gt 0 ]; then
  step "FAILED: ${failed[*]}"
  exit 1
fi
step "done"
