#!/usr/bin/env bash
# Compiles the CPU library with each C++ compiler of this machine, warnings as errors, and runs the
# tests of the kernels on it: g++ and clang++ of every version on PATH. With the clang of the Python
# package ziglang it compiles and links only, for Linux and macOS: torch's Linux libraries use GCC's
# standard library, which zig does not link.
#
# Usage: [PYTHON=python3] tests/native/compilers.sh [COMPILER ...]
#
# Debian has several: apt install g++-11 g++-12 clang-14 clang-15 clang-16 clang-19.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
export CIRCULANT_ATTENTION_CUDA=0

compilers=("$@")
if [ $# -eq 0 ]; then
  mapfile -t compilers < <(compgen -c | grep -xE '(clang|g)\+\+(-[0-9]+)?' | sort -uV)
  if zig=$("$PYTHON" -c 'import ziglang, os; print(os.path.dirname(ziglang.__file__) + "/zig")' 2>/dev/null); then
    compilers+=("$zig c++ -target x86_64-linux-gnu" "$zig c++ -target aarch64-macos")
  fi
fi

failed=()
for compiler in "${compilers[@]}"; do
  name=$(tr -c 'a-zA-Z0-9+\n' '_' <<<"${compiler##*/}")
  directory=build/compilers/$name
  mkdir -p "$directory"
  if ! CXX=$compiler CXXFLAGS=-Werror "$PYTHON" setup.py build_ext --build-lib "$directory" \
    --build-temp "$directory" >"$directory/log" 2>&1; then
    result="failed: see $directory/log"
    failed+=("$compiler")
  elif [[ $compiler == *"zig c++"* ]]; then
    result="compiled and linked without a warning"
  elif CIRCULANT_ATTENTION_LIBRARY=$directory/circulant_attention/libcirculant_attention_cpu.so \
    OMP_NUM_THREADS=1 "$PYTHON" -m pytest -q tests/native/test_kernels.py \
    tests/native/test_attention_kernels.py >"$directory/tests" 2>&1; then
    result="no warning; $(tail -n 1 "$directory/tests")"
  else
    result="tests failed: see $directory/tests"
    failed+=("$compiler")
  fi
  printf '%s (%s): %s\n' "$name" "$($compiler --version | head -n 1)" "$result"
done
rm -f a.o # zig's, when asked for its target
[ ${#failed[@]} -eq 0 ]
