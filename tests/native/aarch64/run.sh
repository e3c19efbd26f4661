#!/usr/bin/env bash
# Compiles the CPU library and a check of its kernels for 64-bit Arm, without warnings, and runs the check in an
# emulator: right or wrong, not how fast.
#
# Debian has what it needs: apt install g++-aarch64-linux-gnu qemu-user-static
set -euo pipefail
cd "$(dirname "$0")/../../.."
PYTHON=${PYTHON:-python3}
export CXX=${CXX:-aarch64-linux-gnu-g++}
emulator=${EMULATOR:-qemu-aarch64-static}
for tool in "$CXX" "$emulator"; do
  command -v "$tool" >/dev/null || {
    echo "missing: $tool; on Debian, apt install g++-aarch64-linux-gnu qemu-user-static" >&2
    exit 1
  }
done

build=build/aarch64
mkdir -p "$build"
CIRCULANT_ATTENTION_CUDA=0 CXXFLAGS=-Werror "$PYTHON" setup.py -q build_ext --build-lib "$build" --build-temp "$build" \
  >"$build/log" 2>&1 || { cat "$build/log" >&2; exit 1; }
library=$build/circulant_attention/libcirculant_attention_cpu.so
readelf -h "$library" | grep -q AArch64
echo "$library: compiled and linked without a warning"

"$CXX" -std=c++17 -O1 -Wall -Wextra -Werror -static -isystem third_party/torch/include \
  tests/native/aarch64/check.cpp "$(find "$build" -path '*/kernels' -type d)"/*.plain.o -o "$build/check"
"$emulator" "$build/check"
