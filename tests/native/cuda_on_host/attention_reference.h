// Fused attention and its gradients in float64, written from the definition.
#pragma once

#include <limits>

#include "check.h"

namespace check {

struct AttentionCase {
  const Case& c;
  int64_t value_channels;
  bool distance;
  double scale;

  circulant::AttentionProblem problem() const {
    const double log2e = 1.4426950408889634;
    return {c.groups,
            Pattern(c.geometry()),
            {static_cast<int>(c.channels), static_cast<int>(value_channels), distance, scale,
             (distance ? -0.5 : 1.0) * scale * log2e}};
  }
};

inline double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double value : values) {
    if (std::isfinite(value)) most = std::max(most, std::abs(value));
  }
  return most;
}

// The numbers of the offsets of a row in the order of its values.
inline std::vector<int64_t> offsets_of(const Case& c, int64_t row) {
  const auto at = place_of(c, row);
  std::vector<int64_t> numbers{0};
  for (int d = 0; d < 3; ++d) {
    const circulant::Dim dim = c.dim(d);
    std::vector<std::pair<int64_t, int64_t>> slots;  // key, offset
    for (int64_t o = 0; o < dim.window; ++o) {
      const int64_t j = at[d] + dim.dilation * (o - dim.before);
      slots.push_back({dim.circular ? (j % dim.size + dim.size) % dim.size : o, o});
    }
    std::sort(slots.begin(), slots.end());
    std::vector<int64_t> longer;
    for (const int64_t number : numbers) {
      for (const auto& slot : slots) longer.push_back(number * dim.window + slot.second);
    }
    numbers = longer;
  }
  return numbers;
}

// Inputs and results, and the magnitudes that bound the rounding errors of the results.
struct AttentionReference {
  std::vector<double> q, k, v, dy;
  std::vector<double> y, lse, dq, dk, dv;
  // The terms of scores, (heads, K) and (rows, keys), and the gradient of lse; empty for none.
  std::vector<double> bias, key_bias, dlse;
  int64_t heads = 1, rows = 1;
  std::vector<double> dbias, dkey_bias;
  // The largest |S|, sum over channels of |terms of S|, and of |dy v| or |delta|.
  double scores = 0, products = 0, value_products = 0;
  double column_sum = 0;  // the largest of P
  double offset_sum = 0;  // the largest of P over the queries that an element of the bias is for
  double largest = 0;     // the largest magnitude of an input

  const AttentionCase& a;

  explicit AttentionReference(const AttentionCase& a) : a(a) {
    const Case& c = a.c;
    const int64_t G = c.groups, N = c.pixels(), M = c.keys(), C = c.channels,
                  C_v = a.value_channels;
    q = random_eighths(G * C * N);
    k = random_eighths(G * C * M);
    v = random_eighths(G * C_v * M);
    dy = random_eighths(G * C_v * N);
    for (const auto* x : {&q, &k, &v, &dy}) largest = std::max(largest, check::largest(*x));
    y.resize(G * C_v * N);
    lse.resize(G * N);
    dq.resize(G * C * N);
    dk.resize(G * C * M);
    dv.resize(G * C_v * M);
    for (int64_t i = 0; i < N; ++i) columns.push_back(columns_of(c, i));
  }

  // Draws terms, a tenth of them -infinity, where their rows are not 0. If there are some, all of
  // the last row are. `shift` is added to the bias.
  void draw_terms(int64_t of_offsets, int64_t of_keys, double shift) {
    const double absent = -std::numeric_limits<double>::infinity();
    const auto draw = [&](int64_t count, int64_t width, std::vector<double>& terms) {
      terms = random_eighths(count * width);
      for (int64_t n = 0; n < count * width; ++n) {
        if (randomness() % 10 == 0 || (count > 1 && n / width == count - 1)) terms[n] = absent;
      }
    };
    draw(of_offsets, a.c.offsets(), bias);
    for (double& term : bias) term += shift;
    draw(of_keys, a.c.keys(), key_bias);
    heads = std::max<int64_t>(of_offsets, 1);
    rows = std::max<int64_t>(of_keys, 1);
    dbias.resize(bias.size());
    dkey_bias.resize(key_bias.size());
    dlse = random_eighths(a.c.groups * a.c.pixels());
    for (int64_t i = 0; i < a.c.pixels(); ++i) offsets.push_back(offsets_of(a.c, i));
  }

  // The scores of a row of A in the order of its values, -infinity for absent keys; rows of all
  // groups are numbered together.
  std::vector<double> scores_of(int64_t row) {
    const int64_t N = a.c.pixels();
    std::vector<double> s;
    for (size_t n = 0; n < columns[row % N].size(); ++n) {
      s.push_back(columns[row % N][n] < 0 ? -std::numeric_limits<double>::infinity()
                                          : score(row / N, row % N, n));
    }
    return s;
  }

  // y and lse of these v.
  void forward() {
    const int64_t N = a.c.pixels(), M = a.c.keys(), C_v = a.value_channels;
    std::fill(y.begin(), y.end(), 0.0);
    for (int64_t row = 0; row < a.c.groups * N; ++row) {
      const int64_t g = row / N, i = row % N;
      const std::vector<double> s = scores_of(row);
      double most = -std::numeric_limits<double>::infinity(), total = 0;
      for (const double one : s) most = std::max(most, one);
      lse[row] = most;
      if (std::isinf(most)) continue;  // no key
      for (const double one : s) total += std::exp(one - most);
      lse[row] = most + std::log(total);
      for (size_t n = 0; n < s.size(); ++n) {
        if (columns[i][n] < 0) continue;
        const double weight = std::exp(s[n] - lse[row]);
        for (int64_t c = 0; c < C_v; ++c)
          y[(g * C_v + c) * N + i] += weight * v[(g * C_v + c) * M + columns[i][n]];
      }
    }
  }

  // The gradients, from these y and lse.
  void backward() {
    const int64_t N = a.c.pixels(), M = a.c.keys(), C = a.c.channels, C_v = a.value_channels;
    std::vector<double> sums(a.c.groups * M);
    std::vector<double> offset_sums(bias.size());
    for (auto* x : {&dq, &dk, &dv, &dbias, &dkey_bias}) std::fill(x->begin(), x->end(), 0.0);
    for (int64_t row = 0; row < a.c.groups * N; ++row) {
      const int64_t g = row / N, i = row % N;
      if (std::isinf(lse[row])) continue;  // no key
      double delta = dlse.empty() ? 0 : -dlse[row];
      for (int64_t c = 0; c < C_v; ++c) {
        const int64_t at = (g * C_v + c) * N + i;
        delta += dy[at] * y[at];
      }
      for (size_t n = 0; n < columns[i].size(); ++n) {
        const int64_t j = columns[i][n];
        if (j < 0) continue;
        const double weight = std::exp(score(g, i, n) - lse[row]);
        double dp = 0, magnitude = 0;
        for (int64_t c = 0; c < C_v; ++c) {
          const double product = dy[(g * C_v + c) * N + i] * v[(g * C_v + c) * M + j];
          dp += product;
          magnitude += std::abs(product);
          dv[(g * C_v + c) * M + j] += weight * dy[(g * C_v + c) * N + i];
        }
        value_products = std::max({value_products, magnitude, std::abs(delta)});
        column_sum = std::max(column_sum, sums[g * M + j] += weight);
        if (!bias.empty()) {
          const int64_t at = bias_at(g, i, n);
          dbias[at] += weight * (dp - delta);
          offset_sum = std::max(offset_sum, offset_sums[at] += weight);
        }
        if (!key_bias.empty()) dkey_bias[key_bias_at(g, j)] += weight * (dp - delta);
        const double ds = a.scale * weight * (dp - delta);
        for (int64_t c = 0; c < C; ++c) {
          const int64_t at_i = (g * C + c) * N + i, at_j = (g * C + c) * M + j;
          dq[at_i] += ds * (k[at_j] - (a.distance ? q[at_i] : 0));
          dk[at_j] += ds * (q[at_i] - (a.distance ? k[at_j] : 0));
        }
      }
    }
  }

 private:
  int64_t bias_at(int64_t g, int64_t i, size_t n) const {
    return g % heads * a.c.offsets() + offsets[i][n];
  }
  int64_t key_bias_at(int64_t g, int64_t j) const {
    return g / (a.c.groups / rows) * a.c.keys() + j;
  }

  // That of entry n of row i.
  double score(int64_t g, int64_t i, size_t n) {
    const int64_t j = columns[i][n];
    const int64_t N = a.c.pixels(), M = a.c.keys(), C = a.c.channels;
    double sum = 0, magnitude = 0;
    for (int64_t c = 0; c < C; ++c) {
      const double x = q[(g * C + c) * N + i], y = k[(g * C + c) * M + j];
      const double term = a.distance ? -(x - y) * (x - y) / 2 : x * y;
      sum += term;
      magnitude += std::abs(term);
    }
    products = std::max(products, std::abs(a.scale) * magnitude);
    double term = 0;
    if (!bias.empty()) term += bias[bias_at(g, i, n)];
    if (!key_bias.empty()) term += key_bias[key_bias_at(g, j)];
    scores = std::max(scores, std::abs(a.scale * sum));
    if (std::isfinite(term)) scores = std::max(scores, std::abs(a.scale * sum) + std::abs(term));
    return a.scale * sum + term;
  }

  std::vector<std::vector<int64_t>> columns;
  std::vector<std::vector<int64_t>> offsets;  // the numbers of these entries' offsets
};

// Runs check(reference, dtype, name of the dtype) for dot and distance, with value_channels(count)
// of v. Four runs in a row have four dtypes, in a rotating order; `count` numbers them.
template <class N, class F>
void check_kinds(const Case& c, int& count, N&& value_channels, F&& check) {
  for (const bool distance : {false, true}) {
    const AttentionCase a{c, value_channels(count), distance,
                          (count % 5 == 1 ? -1.5 : 2.0) / static_cast<double>(c.channels + 2)};
    AttentionReference r(a);
    const int dtype = only_float32 ? 0 : (count + count / 4) % 4;
    if (dtype == 0) check(r, float(), "float32");
    if (dtype == 1) check(r, double(), "float64");
    if (dtype == 2) check(r, c10::Half(), "float16");
    if (dtype == 3) check(r, c10::BFloat16(), "bfloat16");
    ++count;
  }
}

}  // namespace check
