// Compares the CPU kernels for any processor with loops written from the definition, in double. It
// links the kernels and no torch, so it runs wherever it can be compiled for, an emulator included.
//
// Inputs are small multiples of 1/8, which every dtype holds. Sums of their products are exact in
// float32, so that maps differ by the rounding of the result alone.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../../../csrc/common/accumulate.h"
#include "../../../csrc/cpu/dispatch.h"
#include "../../../csrc/cpu/items.h"
#include "../../../csrc/cpu/pairs.h"
#include "pattern.h"

using namespace circulant;

namespace circulant::simd::plain {
extern const Kernels kKernels;
}

namespace {

const Kernels& kernels = simd::plain::kKernels;
using Values = std::vector<double>;
std::mt19937 generator(1);
int checks = 0, failures = 0;

template <class T>
struct Type;
template <>
struct Type<c10::Half> {
  static constexpr Dtype dtype = Dtype::kFloat16;
  static constexpr const char* name = "float16";
  static constexpr double eps = 0x1p-10;
};
template <>
struct Type<c10::BFloat16> {
  static constexpr Dtype dtype = Dtype::kBFloat16;
  static constexpr const char* name = "bfloat16";
  static constexpr double eps = 0x1p-7;
};
template <>
struct Type<float> {
  static constexpr Dtype dtype = Dtype::kFloat32;
  static constexpr const char* name = "float32";
  static constexpr double eps = 0x1p-23;
};
template <>
struct Type<double> {
  static constexpr Dtype dtype = Dtype::kFloat64;
  static constexpr const char* name = "float64";
  static constexpr double eps = 0x1p-52;
};

Values random_values(int64_t count) {
  std::uniform_int_distribution<int> eighths(-8, 8);
  Values values(count);
  for (double& value : values) value = eighths(generator) / 8.0;
  return values;
}

template <class T>
std::vector<T> stored(const Values& values) {
  std::vector<T> result;
  for (double value : values) result.push_back(static_cast<T>(value));
  return result;
}

template <class Params, class Item>
void run(const Kernel<Params>& kernel, const Params& params, const std::vector<Item>& items) {
  for (const Item& item : items) {
    const int64_t bytes = kernel.scratch_bytes(params, item);
    void* scratch = std::aligned_alloc(64, (bytes + 127) / 64 * 64);
    kernel.run(params, item, scratch);
    std::free(scratch);
  }
}

template <class R>
void compare(const char* type, const char* name, const Geometry& g, const std::vector<R>& found,
             const Values& expected, double tolerance) {
  ++checks;
  double largest = 1, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(found[i]) - expected[i]);
    error = difference <= error ? error : difference;  // NaN stays
    largest = std::max(largest, std::fabs(expected[i]));
  }
  if (found.size() == expected.size() && error <= tolerance * largest) return;
  ++failures;
  std::printf("FAILED: %s of %s, grid %d x %d x %d: error %g, at most %g expected\n", name, type,
              int(g.dims[0].size), int(g.dims[1].size), int(g.dims[2].size), error,
              tolerance * largest);
}

// One group.
template <class T>
void check(const Geometry& g, int64_t channels, int64_t value_channels) {
  using Sum = accumulate_t<T>;
  const auto rows = rows_of(g), rows_of_transpose = rows_of(g.transposed());
  const int64_t pixels = g.pixels(), offsets = g.offsets(), entries = pixels * offsets;
  const Values q = random_values(channels * pixels), k = random_values(channels * pixels),
               v = random_values(value_channels * pixels),
               dy = random_values(value_channels * pixels);
  Values a = random_values(entries);
  const auto each_entry = [&](auto&& f) {
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t s = 0; s < offsets; ++s)
        if (rows[i][s].column >= 0) f(i, rows[i][s].column, i * offsets + s);
  };
  Values present(entries);
  each_entry([&](int64_t, int64_t, int64_t e) { present[e] = 1; });
  for (int64_t e = 0; e < entries; ++e) a[e] *= present[e];
  const auto q_ = stored<T>(q), k_ = stored<T>(k), v_ = stored<T>(v), dy_ = stored<T>(dy),
             a_ = stored<T>(a);
  const std::vector<WorkItem> items = independent_items(g, 1, 3);
  const char* type = Type<T>::name;
  const double half = Type<T>::eps;

  // Maps.
  Values y(v.size()), yt(v.size()), transposed(entries);
  each_entry([&](int64_t i, int64_t j, int64_t e) {
    for (int64_t c = 0; c < value_channels; ++c) {
      y[c * pixels + i] += a[e] * v[c * pixels + j];
      yt[c * pixels + j] += a[e] * v[c * pixels + i];
    }
    const Row& row = rows_of_transpose[j];
    const auto at =
        std::find_if(row.begin(), row.end(), [i](const Slot& slot) { return slot.column == i; });
    transposed[j * offsets + (at - row.begin())] = a[e];
  });
  std::vector<T> result(v.size());
  run(kernels.apply, {g, Type<T>::dtype, value_channels, a_.data(), v_.data(), result.data()},
      items);
  compare(type, "apply", g, result, y, half);
  run(kernels.apply_transposed,
      {g, Type<T>::dtype, value_channels, a_.data(), v_.data(), result.data()}, items);
  compare(type, "apply_transposed", g, result, yt, half);
  std::vector<T> moved(entries);
  run(kernels.transpose, {g, Type<T>::dtype, a_.data(), moved.data()}, items);
  compare(type, "transpose", g, moved, transposed, 0);

  Values softmax(entries), gradient(entries);
  for (int64_t i = 0; i < pixels; ++i) {
    double sum = 0;
    for (int64_t s = 0; s < offsets; ++s) sum += a[i * offsets + s] * a[i * offsets + s];
    for (int64_t s = 0; s < offsets; ++s) {
      gradient[i * offsets + s] = a[i * offsets + s] * (a[i * offsets + s] - sum);
    }
  }
  run(kernels.softmax_backward, {Type<T>::dtype, offsets, a_.data(), a_.data(), moved.data()},
      std::vector<WorkItem>{{0, {0, 1}, {0, pixels}, {0, 1}}});
  compare(type, "softmax_backward", g, moved, gradient, half);

  // Without biases, and with one of each offset and one of each key.
  const auto bias = random_values(offsets), key_bias = random_values(pixels);
  const auto bias_ = stored<Sum>(bias), key_bias_ = stored<Sum>(key_bias);
  for (const auto& [distance, biased] :
       {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
    const double scale = 0.25;
    const Biases biases = biased ? Biases{bias_.data(), key_bias_.data()} : Biases{};
    Values s(entries), score(entries), lse(pixels), p(entries), out(v.size()), delta(pixels),
        dq(q.size()), dk(q.size()), dv(v.size()), dbias(offsets), dkey_bias(pixels);
    each_entry([&](int64_t i, int64_t j, int64_t e) {
      for (int64_t c = 0; c < channels; ++c) {
        const double x = q[c * pixels + i], z = k[c * pixels + j];
        s[e] += distance ? -0.5 * (x - z) * (x - z) : x * z;
      }
      score[e] = scale * s[e];
      if (biased) score[e] += bias[rows[i][e % offsets].offset] + key_bias[j];
      lse[i] += std::exp(score[e]);
    });
    for (double& value : lse) value = std::log(value);
    each_entry([&](int64_t i, int64_t j, int64_t e) {
      p[e] = std::exp(score[e] - lse[i]);
      for (int64_t c = 0; c < value_channels; ++c) {
        out[c * pixels + i] += p[e] * v[c * pixels + j];
      }
    });
    // The gradients of what the kernels get: y and lse as they are stored.
    const auto out_ = stored<T>(out);
    const auto lse_ = stored<Sum>(lse);
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t c = 0; c < value_channels; ++c)
        delta[i] += dy[c * pixels + i] * static_cast<double>(out_[c * pixels + i]);
    each_entry([&](int64_t i, int64_t j, int64_t e) {
      double dp = -delta[i];
      for (int64_t c = 0; c < value_channels; ++c) {
        dp += dy[c * pixels + i] * v[c * pixels + j];
        dv[c * pixels + j] += p[e] * dy[c * pixels + i];
      }
      dbias[rows[i][e % offsets].offset] += p[e] * dp;
      dkey_bias[j] += p[e] * dp;
      const double ds = scale * p[e] * dp;
      for (int64_t c = 0; c < channels; ++c) {
        const double x = q[c * pixels + i], z = k[c * pixels + j];
        dq[c * pixels + i] += ds * (distance ? z - x : z);
        dk[c * pixels + j] += ds * (distance ? x - z : x);
      }
    });

    run(kernels.similarity,
        {g, Type<T>::dtype, channels, distance, q_.data(), k_.data(), moved.data()}, items);
    compare(type, distance ? "distance" : "dot product", g, moved, s, half);
    std::vector<Sum> found_lse(pixels);
    run(kernels.attention,
        {g, Type<T>::dtype, channels, value_channels, distance, scale, q_.data(), k_.data(),
         v_.data(), result.data(), found_lse.data(), biases},
        items);
    // Exponentials, and sums of some hundred terms.
    const double rounding = 200 * Type<Sum>::eps;
    compare(type, "attention", g, result, out, half + rounding);
    compare(type, "lse of attention", g, found_lse, lse, rounding);
    if (!biased) {
      run(kernels.adjacency,
          {g, Type<T>::dtype, channels, distance, scale, q_.data(), k_.data(), moved.data()},
          items);
      compare(type, "adjacency", g, moved, p, half + rounding);
    }
    const PairCut cut = pair_cut(g, 1, channels + value_channels);
    const PairPhases pairs = pair_phases(g, 1, cut);
    const int64_t blocks = blocks_of_group(g, cut);
    std::vector<Sum> found_dq(q.size()), found_dk(q.size()), found_dv(v.size());
    std::vector<Sum> offset_sums(blocks * offsets), key_sums(pixels);
    const AttentionBackwardParams params{g,
                                         Type<T>::dtype,
                                         channels,
                                         value_channels,
                                         distance,
                                         scale,
                                         dy_.data(),
                                         q_.data(),
                                         k_.data(),
                                         v_.data(),
                                         out_.data(),
                                         lse_.data(),
                                         found_dq.data(),
                                         found_dk.data(),
                                         found_dv.data(),
                                         biases,
                                         nullptr,
                                         biased ? offset_sums.data() : nullptr,
                                         biased ? key_sums.data() : nullptr};
    for (const auto& phase : pairs.phases) run(kernels.attention_backward, params, phase);
    compare(type, "dq of attention", g, found_dq, dq, rounding);
    compare(type, "dk of attention", g, found_dk, dk, rounding);
    compare(type, "dv of attention", g, found_dv, dv, rounding);
    if (!biased) continue;
    std::vector<Sum> found_dbias(offsets);
    for (int64_t i = 0; i < blocks * offsets; ++i) found_dbias[i % offsets] += offset_sums[i];
    compare(type, "dbias of attention", g, found_dbias, dbias, rounding);
    compare(type, "dkey_bias of attention", g, key_sums, dkey_bias, rounding);
  }
}

Geometry windowed(Dim planes, Dim rows, Dim columns) {
  Geometry g;
  for (const auto& [d, dim] : {std::pair{0, planes}, {1, rows}, {2, columns}}) g.dims[d] = dim;
  return g;
}

template <class T>
void check_all() {
  // Each dim: the pixels of queries and of keys, the offsets before the query, all offsets, the
  // dilation, whether it is circular.
  const Dim one{1, 1, 0, 1, 1, true};
  const Geometry grids[] = {
      {{1, 1, 1}, {1, 1, 1}},
      {{1, 1, 7}, {1, 1, 3}},
      {{1, 1, 130}, {1, 1, 33}},
      {{1, 1, 9}, {1, 1, 9}},
      {{1, 9, 7}, {1, 3, 5}},
      {{1, 20, 37}, {1, 5, 7}},
      {{1, 11, 11}, {1, 11, 11}},
      {{3, 5, 9}, {3, 1, 5}},
      {{4, 6, 17}, {3, 5, 7}},
      windowed(one, one, {70, 70, 5, 12, 1, false}),
      windowed(one, one, {41, 41, 2, 5, 3, true}),
      windowed(one, {9, 9, 2, 3, 1, false}, {21, 21, 2, 5, 1, true}),
      windowed(one, {12, 12, 1, 3, 2, true}, {19, 19, 1, 4, 2, false}),
      windowed({4, 4, 2, 3, 1, false}, {5, 5, 1, 3, 1, true}, {18, 18, 3, 4, 1, false}),
  };
  const int before = checks;
  for (const Geometry& g : grids) {
    for (const auto& [channels, value_channels] : {std::pair{1, 1}, {3, 5}, {16, 8}}) {
      check<T>(g, channels, value_channels);
    }
  }
  std::printf("%s: %d results compared\n", Type<T>::name, checks - before);
}

}  // namespace

int main() {
  check_all<double>();
  check_all<float>();
  check_all<c10::Half>();
  check_all<c10::BFloat16>();
  std::printf("%d of %d passed\n", checks - failures, checks);
  return failures == 0 ? 0 : 1;
}
