// Cases, device memory and failure reports, for every check of the kernels.
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
  bool infinite = false;  // whether one element of the second input is infinite

  Geometry geometry() const {
    return {{size[0], size[1], size[2]}, {window[0], window[1], window[2]}};
  }
  Problem problem() const { return {groups, static_cast<int>(channels), Pattern(geometry())}; }
  int64_t pixels() const { return geometry().pixels(); }
  int64_t offsets() const { return geometry().offsets(); }
};

inline std::mt19937_64 randomness;
inline int failures = 0, comparisons = 0, most_failures = 10;
inline bool only_float32 = false;

// Device memory of exactly `size` elements. Without elements nothing is allocated.
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
    std::vector<T> elements(count);
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaMemcpy(elements.data(), at + from, count * sizeof(T), cudaMemcpyDeviceToHost));
    return elements;
  }

  int64_t size;
  T* at = nullptr;
};

template <class T>
std::vector<T> rounded(const std::vector<double>& values) {
  std::vector<T> result;
  for (const double value : values) result.push_back(static_cast<T>(static_cast<float>(value)));
  return result;
}

inline std::vector<double> random_eighths(int64_t size) {
  std::vector<double> values(size);
  for (double& value : values)
    value = static_cast<double>(static_cast<int>(randomness() % 33) - 16) / 8;
  return values;
}

// The columns of a row, ascending: sorted, where the kernels compute a rotation.
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

// While it lives, the host runs only the first `groups` of a launch and the last `blocks` of its
// last group: enough for the elements that are compared, where all of them would take too long.
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

// Chooses the emulated device: few multiprocessors get few large blocks, many get many small ones.
// A multiprocessor has from 64 (sm_75) to 228 (sm_90) KiB of shared memory.
inline void choose_device([[maybe_unused]] int multiprocessors,
                          [[maybe_unused]] int shared_memory) {
#ifdef CUDA_ON_HOST
  cuda_on_host::settings().multiprocessors = multiprocessors;
  // From sm_80 on the system reserves one KiB per block.
  cuda_on_host::settings().shared_memory = (shared_memory - (shared_memory > 64)) * 1024;
  cuda_on_host::settings().total_shared_memory = shared_memory * 1024;
  cuda_on_host::settings().major = shared_memory > 64 ? 9 : 7;
#endif
}

inline void seed(uint64_t seed) {
  randomness.seed(seed);
#ifdef CUDA_ON_HOST
  cuda_on_host::settings().seed = seed;
#endif
}

// similarity, apply, apply_transposed and transpose: one case; more groups than a launch can have;
// more than 2^32 entries of A.
void check_maps(const Case& c);
void check_maps_groups();
void check_maps_offsets();

// The adjacency: one case; more groups than a launch can have; more than 2^32 entries of A.
void check_adjacency(const Case& c);
void check_adjacency_groups();
void check_adjacency_offsets();

// Fused attention and its gradients: one case; its plan; more groups than a launch can have; more
// than 2^31 features.
void check_attention(const Case& c);
void check_attention_plan();
void check_attention_groups();
void check_attention_offsets();

// The same on tensor cores; values that are not finite; the instructions that it is made of.
void check_attention_mma();
void check_attention_mma_random(Case c);
void check_attention_mma_infinite();
void check_attention_mma_plan();
void check_attention_mma_groups();
void check_attention_mma_offsets();
void check_fragments();

// Problems that a device cannot run.
void check_limits();

}  // namespace check
