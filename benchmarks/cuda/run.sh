#!/usr/bin/env bash
# Builds the libraries for the GPU of this machine and measures everything, from a bare checkout and without a
# network. Wants nvcc and a PYTHON (python3 by default) with a CUDA torch, setuptools and ninja. Arguments go to
# `python -m benchmarks.cuda`.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
export CIRCULANT_ATTENTION_CUDA=1 CIRCULANT_ATTENTION_ARCHITECTURES=native
"$PYTHON" tests/native/cuda_machine.py
"$PYTHON" setup.py -q build_ext --inplace
"$PYTHON" -m benchmarks.cuda --output benchmarks/results/cuda "$@"
