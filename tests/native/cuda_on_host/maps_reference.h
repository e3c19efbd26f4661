// The maps by their definition, for the checks of their kernels.
//
// Inputs are small multiples of 1/8: every dtype holds them, and float32 holds every sum of their
// products. So the results are known exactly, and one entry too many or too few cannot hide in a
// tolerance.
#pragma once

#include <limits>

#include "check.h"

namespace check {

struct MapsReference {
  std::vector<double> x, y, z, values;  // inputs; y is on the grid of the keys
  std::vector<double> dot, distance, applied, applied_transposed;
  std::vector<int64_t> transposed;  // where each entry of the result comes from, -1 for zeros

  // With `spoiled`, one entry is infinite.
  explicit MapsReference(const Case& c, bool spoiled = false) {
    const int64_t N = c.pixels(), M = c.keys(), K = c.offsets(), G = c.groups, C = c.channels;
    x = random_eighths(G * C * N);
    y = random_eighths(G * C * M);
    z = random_eighths(G * C * N);
    values = random_eighths(G * N * K);
    for (auto* one : {&y, &z}) {
      if (c.infinite) (*one)[infinite_at(c, one->size())] = std::numeric_limits<double>::infinity();
    }
    if (spoiled) values[randomness() % values.size()] = std::numeric_limits<double>::infinity();
    dot.resize(G * N * K);
    distance.resize(G * N * K);
    if (!c.has_halo()) transposed.resize(G * N * K, -1);
    applied.resize(G * C * N);
    applied_transposed.resize(G * C * M);
    const Case mirrored = c.mirrored();
    std::vector<std::vector<int64_t>> columns(N);
    std::vector<int64_t> slot_of(c.has_halo() ? 0 : N * N);  // of the transposed matrix
    for (int64_t i = 0; i < N; ++i) {
      columns[i] = columns_of(c, i);
      if (c.has_halo()) continue;
      const std::vector<int64_t> back = columns_of(mirrored, i);
      for (int64_t s = 0; s < K; ++s) {
        if (back[s] >= 0) slot_of[i * N + back[s]] = s;
      }
    }
    for (int64_t g = 0; g < G; ++g) {
      for (int64_t i = 0; i < N; ++i) {
        for (int64_t s = 0; s < K; ++s) {
          const int64_t j = columns[i][s], entry = (g * N + i) * K + s;
          if (j < 0) {
            values[entry] = 0;
            continue;
          }
          if (!c.has_halo()) transposed[(g * N + j) * K + slot_of[j * N + i]] = entry;
          for (int64_t channel = 0; channel < C; ++channel) {
            const int64_t at_i = (g * C + channel) * N + i, at_j = (g * C + channel) * M + j;
            const double difference = x[at_i] - y[at_j];
            dot[entry] += x[at_i] * y[at_j];
            distance[entry] -= difference * difference / 2;
            applied[at_i] += values[entry] * y[at_j];
            applied_transposed[at_j] += values[entry] * z[at_i];
          }
        }
      }
    }
  }
};

// `expected(i)` is a double. It is rounded to T as in the kernels, by way of the type that they sum
// in.
template <class T, class Expected>
void compare_exactly(const Case& c, const std::string& what, const std::vector<T>& got,
                     const Expected& expected) {
  ++comparisons;
  for (size_t i = 0; i < got.size(); ++i) {
    const double want =
        static_cast<double>(static_cast<T>(static_cast<circulant::accumulate_t<T>>(expected(i))));
    const double have = static_cast<double>(got[i]);
    if (want == have || (std::isnan(want) && std::isnan(have))) continue;
    return report(c, what,
                  "element " + std::to_string(i) + " is " + std::to_string(have) + " instead of " +
                      std::to_string(want));
  }
}

}  // namespace check
