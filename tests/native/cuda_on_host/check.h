// What the checks of the kernels share: cases, device memory, comparisons and their outcome.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "../../../csrc/common/accumulate.h"
#include "../../../csrc/cuda/kernels.h"
#include "../../../csrc/cuda/launch.h"

namespace check {

using circulant::check_cuda;
using circulant::Geometry;
using circulant::Pattern;
using circulant::Problem;

struct Case {
  int64_t groups, channels;
  int64_t size[3], window[3];
  bool infinite = false;  // one number of the second input is infinite

  Geometry geometry() const {
    return {{size[0], size[1], size[2]}, {window[0], window[1], window[2]}};
  }
  Problem problem() const { return {groups, channels, Pattern(geometry())}; }
  int64_t pixels() const { return geometry().pixels(); }
  int64_t offsets() const { return geometry().offsets(); }
};

inline std::mt19937_64 randomness;
inline int failures = 0, comparisons = 0, most_failures = 10;

// Device memory of exactly so many numbers; none, and no call, for no number.
template <class T>
class Array {
 public:
  explicit Array(int64_t size) : size(size) {
    if (size == 0) return;
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, bytes()));
    at = static_cast<T*>(memory);
  }
  explicit Array(const std::vector<T>& from) : Array(static_cast<int64_t>(from.size())) {
    if (size > 0) check_cuda(cudaMemcpy(at, from.data(), bytes(), cudaMemcpyHostToDevice));
  }
  Array(const Array&) = delete;
  ~Array() { cudaFree(at); }

  size_t bytes() const { return static_cast<size_t>(size) * sizeof(T); }
  void write(int64_t i, T value) {
    check_cuda(cudaMemcpy(at + i, &value, sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> read(int64_t from, int64_t count) const {
    std::vector<T> numbers(count);
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaMemcpy(numbers.data(), at + from, count * sizeof(T), cudaMemcpyDeviceToHost));
    return numbers;
  }

  int64_t size;
  T* at = nullptr;
};

template <class T>
std::vector<T> rounded(const std::vector<double>& numbers) {
  std::vector<T> result;
  for (const double number : numbers) result.push_back(static_cast<T>(static_cast<float>(number)));
  return result;
}

inline std::vector<double> random_eighths(int64_t size) {
  std::vector<double> numbers(size);
  for (double& number : numbers)
    number = static_cast<double>(static_cast<int>(randomness() % 33) - 16) / 8;
  return numbers;
}

// The columns of a row, ascending: made by sorting, where the kernels compute a rotation.
inline std::vector<int64_t> columns_of(const Case& c, int64_t row) {
  const int64_t at[3] = {row / (c.size[2] * c.size[1]), row / c.size[2] % c.size[1],
                         row % c.size[2]};
  std::vector<int64_t> columns;
  for (int64_t i = 0; i < c.window[0]; ++i) {
    for (int64_t j = 0; j < c.window[1]; ++j) {
      for (int64_t k = 0; k < c.window[2]; ++k) {
        const int64_t offset[3] = {i, j, k};
        int64_t column = 0;
        for (int d = 0; d < 3; ++d) {
          column =
              column * c.size[d] + (at[d] + offset[d] - c.window[d] / 2 + c.size[d]) % c.size[d];
        }
        columns.push_back(column);
      }
    }
  }
  std::sort(columns.begin(), columns.end());
  return columns;
}

inline void report(const Case& c, const std::string& what, const std::string& problem) {
  std::printf("FAIL %s, G %ld C %ld grid %ldx%ldx%ld window %ldx%ldx%ld%s: %s\n", what.c_str(),
              long(c.groups), long(c.channels), long(c.size[0]), long(c.size[1]), long(c.size[2]),
              long(c.window[0]), long(c.window[1]), long(c.window[2]),
              c.infinite ? " infinite" : "", problem.c_str());
  if (++failures < most_failures) return;
  std::printf("FAILED: stopped after %d failures\n", failures);
  std::exit(1);
}

// On the host, runs only the first `groups` (of those that a launch can have) or the last `blocks`
// of the last group, while it lives: what they have to do shows what is to be shown, and all would
// take too long.
class Only {
 public:
#ifdef CUDA_ON_HOST
  Only(unsigned groups, unsigned blocks) {
    cuda_on_host::settings().only = [=](const uint3& block, const dim3& grid) {
      return block.z < groups || (block.z == grid.z - 1 && block.x + blocks >= grid.x);
    };
  }
  ~Only() { cuda_on_host::settings().only = nullptr; }
#else
  Only(unsigned, unsigned) {}
#endif
};

// On the host, a device with few or many multiprocessors, which gets few large blocks or many small
// ones, and with shared memory of a multiprocessor (in KiB) as there is from sm_75, which has 64,
// to sm_120.
inline void choose_device([[maybe_unused]] int multiprocessors,
                          [[maybe_unused]] int shared_memory) {
#ifdef CUDA_ON_HOST
  cuda_on_host::settings().multiprocessors = multiprocessors;
  // From sm_80 on a KiB of it is the system's, for each block.
  cuda_on_host::settings().shared_memory = (shared_memory - (shared_memory > 64)) * 1024;
  cuda_on_host::settings().total_shared_memory = shared_memory * 1024;
#endif
}

inline void seed(uint64_t seed) {
  randomness.seed(seed);
#ifdef CUDA_ON_HOST
  cuda_on_host::settings().seed = seed;
#endif
}

// The kernels of fused attention: over one case, their tiles, over more groups than a launch can
// have, and at offsets above 2^31.
void check_attention(const Case& c);
void check_attention_plan();
void check_attention_groups();
void check_attention_offsets();

}  // namespace check
