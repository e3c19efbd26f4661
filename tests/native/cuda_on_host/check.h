// Cases, device memory and failure reports, for every check of the kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
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

enum Boundary { kCircular, kTruncated, kValid };

struct Case {
  int64_t groups, channels;
  int64_t size[3], window[3];
  bool infinite = false;  // whether one element of the second input is infinite
  // Per dim, the reach before the pixel; -1 is half of the window.
  int64_t before[3] = {-1, -1, -1}, dilation[3] = {1, 1, 1};
  Boundary boundary[3] = {kCircular, kCircular, kCircular};

  circulant::Dim dim(int d) const {
    const int64_t n = size[d], w = window[d];
    if (boundary[d] == kValid) return {n, n + dilation[d] * (w - 1), 0, w, dilation[d], false};
    return {n, n, before[d] < 0 ? w / 2 : before[d], w, dilation[d], boundary[d] == kCircular};
  }
  Geometry geometry() const {
    Geometry g;
    for (int d = 0; d < 3; ++d) g.dims[d] = dim(d);
    return g;
  }
  Problem problem() const { return {groups, static_cast<int>(channels), Pattern(geometry())}; }
  int64_t pixels() const { return geometry().pixels(); }
  int64_t keys() const { return geometry().key_pixels(); }
  int64_t offsets() const { return geometry().offsets(); }
  // Whether keys are absent at the borders.
  bool is_bounded() const {
    for (const Boundary b : boundary) {
      if (b != kCircular) return true;
    }
    return false;
  }
  // Whether some dim has no transposed matrix on the same grid.
  bool has_halo() const { return pixels() != keys(); }
  // That of the transposed matrix.
  Case mirrored() const {
    Case c = *this;
    for (int d = 0; d < 3; ++d) c.before[d] = dim(d).after();
    return c;
  }
};

inline std::mt19937_64 randomness;
inline int failures = 0, comparisons = 0, most_failures = 10;
inline bool only_float32 = false;

// Which of `size` elements is infinite. Absent keys are read from the first one and masked.
inline size_t infinite_at(const Case& c, size_t size) {
  return c.is_bounded() ? 0 : randomness() % size;
}

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
    if (count == 0) return elements;
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaMemcpy(elements.data(), at + from, count * sizeof(T), cudaMemcpyDeviceToHost));
    return elements;
  }

  int64_t size;
  T* at = nullptr;
};

// An array that begins so many elements after an aligned address.
template <class T>
class Shifted {
 public:
  Shifted(const std::vector<T>& from, int shift) : shift(shift), all(padded(from, shift)) {}
  Shifted(int64_t size, int shift) : Shifted(std::vector<T>(size, T(NAN)), shift) {}

  T* at() const { return all.at + shift; }
  std::vector<T> read() const { return all.read(shift, all.size - shift); }

 private:
  static std::vector<T> padded(std::vector<T> values, int shift) {
    values.insert(values.begin(), shift, T(NAN));
    return values;
  }

  int shift;
  Array<T> all;
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

// The keys of query i in the order of the values, -1 for an absent one: on a circle sorted, where
// the kernels compute a rotation.
inline std::vector<int64_t> keys_of(const circulant::Dim& dim, int64_t i) {
  std::vector<int64_t> keys;
  for (int64_t o = 0; o < dim.window; ++o) {
    int64_t j = i + dim.dilation * (o - dim.before);
    if (dim.circular) {
      j = (j % dim.size + dim.size) % dim.size;
    } else if (j < 0 || j >= dim.keys) {
      j = -1;
    }
    keys.push_back(j);
  }
  if (dim.circular) std::sort(keys.begin(), keys.end());
  return keys;
}

// The distance of numbers from 1 on: float16 has 11 bits, bfloat16 has 8.
template <class T>
constexpr double spacing() {
  if (std::is_same<T, c10::Half>::value) return 0x1p-10;
  if (std::is_same<T, c10::BFloat16>::value) return 0x1p-7;
  return std::numeric_limits<T>::epsilon();
}

// The place of a row in planes, rows and columns.
inline std::array<int64_t, 3> place_of(const Case& c, int64_t row) {
  return {row / (c.size[2] * c.size[1]), row / c.size[2] % c.size[1], row % c.size[2]};
}

// The columns of a row in the order of its values, -1 for an absent one.
inline std::vector<int64_t> columns_of(const Case& c, int64_t row) {
  const auto at = place_of(c, row);
  std::vector<int64_t> columns{0};
  for (int d = 0; d < 3; ++d) {
    const circulant::Dim dim = c.dim(d);
    std::vector<int64_t> longer;
    for (const int64_t column : columns) {
      for (const int64_t key : keys_of(dim, at[d])) {
        longer.push_back(column < 0 || key < 0 ? -1 : column * dim.keys + key);
      }
    }
    columns = longer;
  }
  return columns;
}

// The slot of a column in a row.
inline int64_t slot_in(const std::vector<int64_t>& columns, int64_t column) {
  return std::find(columns.begin(), columns.end(), column) - columns.begin();
}

inline void report(const Case& c, const std::string& what, const std::string& problem) {
  std::printf("FAIL %s, G %ld C %ld", what.c_str(), long(c.groups), long(c.channels));
  for (int d = 0; d < 3; ++d) {
    const circulant::Dim dim = c.dim(d);
    const char* const kinds[] = {"circular", "truncated", "valid"};
    std::printf(", %ld pixels window -%ld..%ld step %ld %s", long(dim.size), long(dim.before),
                long(dim.after()), long(dim.dilation), kinds[c.boundary[d]]);
  }
  std::printf("%s: %s\n", c.infinite ? ", infinite" : "", problem.c_str());
  if (++failures < most_failures) return;
  std::printf("FAILED: stopped after %d failures\n", failures);
  std::exit(1);
}

// While it lives, the host runs only the first `groups` of a launch and the last `blocks` of its
// last group: enough for the elements that are compared, where all of them would take too long.
// Some launches have the groups of several `parts` one after the other.
class Only {
 public:
#ifdef CUDA_ON_HOST
  Only(unsigned groups, unsigned blocks, unsigned parts = 1) {
    cuda_on_host::settings().only = [=](const uint3& block, const dim3& grid) {
      const unsigned of_part = std::max(grid.z / parts, 1u), group = block.z % of_part;
      const bool is_last = group == of_part - 1 || block.z == grid.z - 1;
      return group < groups || (is_last && block.x + blocks >= grid.x);
    };
  }
  ~Only() { cuda_on_host::settings().only = nullptr; }
#else
  Only(unsigned, unsigned, unsigned = 1) {}
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

// The same but the transpose on tensor cores, and which kernels run.
void check_maps_mma();
void check_maps_mma_random(Case c);
void check_maps_mma_plan();
void check_maps_mma_groups();
void check_maps_mma_offsets();

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

// The same with terms of the scores, and their gradients; sums at offsets above 2^31.
void check_biased_attention(const Case& c);
void check_biased_attention_groups();
void check_biased_attention_offsets();

// Fused attention on tensor cores; values that are not finite; the instructions that it is made of.
void check_attention_mma(bool has_terms);
void check_attention_mma_random(Case c);
void check_attention_mma_infinite();
void check_attention_mma_plan();
void check_attention_mma_groups();
void check_attention_mma_offsets();
void check_fragments();

// Pixels of the classes of long dilated dims.
void check_positions();

// Problems that a device cannot run.
void check_limits();

}  // namespace check
