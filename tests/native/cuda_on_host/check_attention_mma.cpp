// Compares fused attention on tensor cores, and its gradients, with the definition in float64.
#include "attention_checks.h"

namespace check {
namespace {

struct MmaCase {
  Case c;
  int64_t value_channels;
  bool distance;
  double scale;
  int shift = 0;            // of all arrays, in elements
  int shared_memory = 228;  // of a multiprocessor
};

// `coarse` is the distance from 1 to the next number of T: weights are rounded to T, and results,
// by half of it.
template <class T>
void check_mma(const MmaCase& a, AttentionReference& r, const char* dtype, double coarse) {
  const Case& c = r.a.c;
  const double eps = std::numeric_limits<float>::epsilon();
  std::string name = std::string(dtype) + ", values " + std::to_string(a.value_channels);
  if (!r.bias.empty()) name += ", heads " + std::to_string(r.heads);
  if (!r.key_bias.empty()) name += ", rows of keys " + std::to_string(r.rows);
  const auto compare = [&](const std::string& what, const auto& got,
                           const std::vector<double>& expected, double tolerance) {
    compare_within(c, "mma " + what + (a.distance ? " distance " : " dot ") + name, got, expected,
                   tolerance);
  };
  r.forward();
  const AttentionProblem p = r.a.problem();
  const DeviceTerms<float> terms(r);
  try {
    const int64_t sums = static_cast<int64_t>(r.lse.size()), keys = c.groups * c.keys();
    const Array<float> norms(sums + keys), lse(sums), delta(sums), weight_lse(sums);
    const Shifted<T> q(rounded<T>(r.q), a.shift), k(rounded<T>(r.k), a.shift),
        v(rounded<T>(r.v), a.shift), dy(rounded<T>(r.dy), a.shift);
    const Shifted<T> y(int64_t(r.y.size()), a.shift);
    circulant::attention_mma(q.at(), k.at(), v.at(), y.at(), lse.at, norms.at, terms.terms, p,
                             nullptr);
    // See attention_checks.h. The distance adds the norms to the terms of a score; sums of products
    // begin at the biases.
    const double K = static_cast<double>(c.offsets());
    const double summed = (static_cast<double>(c.channels) + 8) * (a.distance ? 4 : 1);
    const double biases = terms.terms.any() ? r.scores : 0;
    const double score_error = summed * eps * (r.products + biases);
    const double weight_error = 2 * score_error + (K + 16 + 4 * r.scores) * eps;
    compare("lse", lse.read(0, sums), r.lse, score_error + (K + 16 + 4 * r.scores) * eps);
    compare("y", y.read(), r.y, (weight_error + K * eps + coarse) * r.largest);

    const std::vector<T> y_given = rounded<T>(r.y);
    const std::vector<float> lse_given(r.lse.begin(), r.lse.end());
    r.y.assign(y_given.begin(), y_given.end());
    r.lse.assign(lse_given.begin(), lse_given.end());
    r.backward();
    const Array<float> lse_(lse_given);
    const Shifted<T> y_(y_given, a.shift);
    const Shifted<T> dq(int64_t(r.dq.size()), a.shift), dk(int64_t(r.dk.size()), a.shift),
        dv(int64_t(r.dv.size()), a.shift);
    circulant::sum_deltas("check", dy.at(), y_.at(), {lse_.at, terms.dlse.at, weight_lse.at},
                          delta.at, int(a.value_channels), p, nullptr);
    const int64_t tiles = r.bias.empty() ? 0 : circulant::attention_mma_tiles(p);
    terms.sum_up(p, tiles, [&](const circulant::ScoreTermSums<float>& term_sums) {
      circulant::attention_mma_backward(dy.at(), q.at(), k.at(), v.at(), weight_lse.at, delta.at,
                                        norms.at, dq.at(), dk.at(), dv.at(), terms.terms, term_sums,
                                        p, nullptr);
    });
    const double columns = std::max(1.0, r.column_sum);
    const double ds_error = 2 * r.value_products *
                            (weight_error + (static_cast<double>(a.value_channels) + 8 + K) * eps);
    const double ds = columns * ds_error;
    const double rounding = 2 * coarse;
    const double tolerance = 2 * std::abs(a.scale) * ds * r.largest;
    compare("dq", dq.read(), r.dq, tolerance + rounding * largest(r.dq));
    compare("dk", dk.read(), r.dk, tolerance + rounding * largest(r.dk));
    compare("dv", dv.read(), r.dv,
            columns * (weight_error + K * eps) * r.largest + rounding * largest(r.dv));
    const double queries = static_cast<double>(c.groups * c.pixels());
    compare("dbias", terms.dbias.read(0, terms.dbias.size), r.dbias,
            r.offset_sum * (ds_error + 2 * r.value_products * queries * eps));
    // The distance adds dS as it is multiplied, rounded.
    const double rounded_ds = a.distance ? columns * 2 * r.value_products * coarse : 0;
    compare("dkey_bias", terms.dkey_bias.read(0, terms.dkey_bias.size), r.dkey_bias,
            static_cast<double>(terms.terms.row_groups) * (ds + rounded_ds));
  } catch (const std::exception& error) {
    report(c, "mma " + name, error.what());
  }
}

void check_mma(const MmaCase& a, AttentionReference& r, int count) {
  // Most cases have float16, which has smaller tolerances.
  if (count % 3 == 0 && !only_float32) {
    check_mma<c10::BFloat16>(a, r, "bfloat16", 0x1p-7);
  } else {
    check_mma<c10::Half>(a, r, "float16", 0x1p-10);
  }
}

// Whether the bias has offsets that no query of a dim of one pixel has.
bool has_unused_offsets(const Case& c) {
  for (int d = 0; d < 3; ++d) {
    if (c.dim(d).size == 1 && c.dim(d).keys == 1 && c.window[d] > 1) return true;
  }
  return false;
}

// Without terms, or with.
void check_mma(const MmaCase& a, bool has_terms) {
  choose_device(132, a.shared_memory);
  static int count = 0;
  ++count;
  Case c = a.c;
  // Two groups, or three rows for the keys.
  if (has_terms) c.groups *= count % 5 == 1 ? 3 : 2;
  const AttentionCase reference{c, a.value_channels, a.distance, a.scale};
  AttentionReference r(reference);
  if (has_terms) {
    // Rows of the terms, 0 for none; the last one of several has no key.
    const int64_t G = c.groups, counts[][2] = {{G, 1}, {0, G}, {1, G}, {2, 2}, {G, 0}};
    const auto& [heads, rows] = counts[has_unused_offsets(c) ? 1 : count % 5];
    // exp(128) is infinite in float32.
    r.draw_terms(heads, rows, count % 3 == 0 ? 128 : 0);
  }
  check_mma(a, r, count);
}

constexpr Boundary C = kCircular, T = kTruncated, V = kValid;

const MmaCase kCases[] = {
    // A tile, and window 1.
    {{1, 20, {1, 8, 16}, {1, 3, 5}}, 9, false, 0.9},
    {{1, 9, {1, 8, 16}, {1, 5, 3}}, 20, true, 0.9},
    {{1, 16, {1, 1, 1}, {1, 1, 1}}, 16, true, 0.4},
    // Incomplete tiles; widths that are copied in fours, twos and ones; arrays that are not
    // aligned.
    {{2, 6, {1, 9, 20}, {1, 3, 3}}, 7, false, -0.9},
    {{1, 7, {1, 11, 18}, {1, 5, 3}}, 6, true, -0.9},
    {{1, 5, {1, 7, 17}, {1, 3, 9}}, 8, false, 0.9},
    {{1, 6, {1, 8, 16}, {1, 3, 3}}, 6, true, 0.9, 1},
    {{1, 6, {1, 8, 16}, {1, 3, 3}}, 6, false, 0.9, 2},
    {{1, 6, {1, 8, 16}, {1, 3, 3}}, 6, false, 0.9, 4},
    // Windows as large as the grid.
    {{1, 8, {1, 5, 5}, {1, 5, 5}}, 8, false, 0.9},
    {{1, 8, {1, 3, 25}, {1, 3, 25}}, 8, true, 0.9},
    // 3-D; dims of one pixel; wide and flat tiles.
    {{1, 8, {4, 9, 16}, {3, 3, 3}}, 8, false, 0.9},
    {{1, 8, {3, 2, 10}, {3, 1, 9}}, 8, true, 0.9},
    {{1, 8, {1, 1, 140}, {1, 1, 15}}, 8, false, 0.9},
    {{1, 8, {1, 70, 1}, {1, 41, 1}}, 8, true, 0.9},
    {{1, 8, {3, 1, 136}, {3, 1, 5}}, 8, false, 0.9},
    // More channels.
    {{1, 64, {1, 8, 16}, {1, 3, 5}}, 40, true, 0.3},
    {{1, 40, {1, 9, 24}, {1, 3, 17}}, 64, false, 0.3},
    {{1, 128, {1, 8, 16}, {1, 3, 3}}, 70, false, 0.2},
    {{1, 70, {1, 8, 16}, {1, 3, 3}}, 128, true, 0.2},
    // Even and one-sided windows.
    {{1, 8, {1, 9, 24}, {1, 4, 6}, false, {0, 1, 4}}, 8, true, 0.9},
    {{1, 8, {1, 17, 16}, {1, 3, 9}, false, {0, 2, 8}}, 8, false, 0.9},
    {{1, 8, {1, 1, 140}, {1, 1, 20}, false, {0, 0, 19}}, 8, true, 0.9},
    {{1, 8, {2, 1, 136}, {2, 1, 18}, false, {0, 0, 0}}, 8, false, 0.9},
    // Truncated dims: each of them, and windows larger than the grid.
    {{1, 8, {1, 11, 24}, {1, 5, 7}, false, {0, 2, 3}, {1, 1, 1}, {C, T, C}}, 8, false, 0.9},
    {{1, 8, {1, 18, 20}, {1, 4, 6}, false, {0, 0, 5}, {1, 1, 1}, {C, T, T}}, 9, true, 0.9},
    {{1, 8, {1, 1, 150}, {1, 1, 40}, false, {0, 0, 39}, {1, 1, 1}, {C, C, T}}, 8, false, 0.9},
    {{1, 8, {1, 1, 50}, {1, 1, 90}, false, {0, 0, 60}, {1, 1, 1}, {C, C, T}}, 8, true, 0.9},
    {{1, 8, {4, 6, 9}, {3, 3, 4}, false, {1, 0, 2}, {1, 1, 1}, {T, C, T}}, 8, true, 0.9},
    {{1, 8, {1, 3, 17}, {1, 15, 3}, false, {0, 9, 1}, {1, 1, 1}, {C, T, T}}, 8, false, 0.9},
    {{1, 8, {1, 20, 1}, {1, 7, 3}, false, {0, 3, 2}, {1, 1, 1}, {C, T, T}}, 8, false, 0.9},
    // Keys with a halo.
    {{1, 8, {1, 10, 16}, {1, 3, 9}, false, {0, 0, 0}, {1, 1, 1}, {C, V, V}}, 8, true, 0.9},
    {{1, 8, {2, 7, 13}, {3, 4, 3}, false, {0, 0, 0}, {1, 1, 1}, {V, T, V}}, 8, false, 0.9},
    {{1, 8, {1, 1, 70}, {1, 1, 21}, false, {0, 0, 0}, {1, 1, 1}, {C, C, V}}, 8, false, 0.9},
    {{2, 8, {1, 8, 16}, {1, 1, 3}, false, {0, 0, 0}, {1, 1, 1}, {C, C, V}}, 8, true, 0.9},
    // Dilated circles: that the dilation divides, with a common divisor, and without.
    {{1, 8, {1, 9, 48}, {1, 3, 5}, false, {0, 1, 2}, {1, 1, 2}}, 8, false, 0.9},
    {{1, 8, {1, 18, 32}, {1, 5, 3}, false, {0, 2, 1}, {1, 2, 1}}, 9, true, 0.9},
    {{1, 8, {1, 3, 42}, {1, 3, 7}, false, {0, 1, 3}, {1, 1, 4}}, 8, true, 0.9},
    {{1, 8, {1, 5, 43}, {1, 3, 9}, false, {0, 1, 8}, {1, 1, 3}}, 8, false, 0.9},
    {{1, 8, {1, 25, 16}, {1, 7, 3}, false, {0, 3, 1}, {1, 3, 1}}, 8, false, 0.9},
    {{1, 8, {1, 26, 18}, {1, 4, 6}, false, {0, 1, 4}, {1, 6, 3}}, 8, true, 0.9},
    // Dilated lines, of several lengths; longer dilations than the grid; keys that no query sees.
    {{1, 9, {1, 19, 47}, {1, 4, 6}, false, {0, 0, 5}, {1, 2, 3}, {C, T, T}}, 9, true, 0.9},
    {{1, 8, {1, 18, 20}, {1, 5, 7}, false, {0, 2, 3}, {1, 4, 2}, {C, T, C}}, 8, false, 0.9},
    {{1, 8, {1, 3, 20}, {1, 3, 3}, false, {0, 1, 1}, {1, 5, 2}, {C, T, C}}, 8, false, 0.9},
    {{1, 8, {1, 10, 17}, {1, 3, 5}, false, {0, 0, 0}, {1, 3, 2}, {C, V, V}}, 8, true, 0.9},
    {{1, 8, {1, 3, 5}, {1, 2, 3}, false, {0, 0, 0}, {1, 4, 7}, {C, V, V}}, 8, false, 0.9},
    // Of flat grids, of columns, and of planes.
    {{1, 8, {1, 1, 140}, {1, 1, 9}, false, {0, 0, 4}, {1, 1, 5}}, 8, false, 0.9},
    {{1, 8, {1, 1, 137}, {1, 1, 20}, false, {0, 0, 19}, {1, 1, 3}}, 8, true, 0.9},
    {{1, 8, {1, 1, 151}, {1, 1, 40}, false, {0, 0, 39}, {1, 1, 3}, {C, C, T}}, 8, false, 0.9},
    {{1, 8, {1, 70, 1}, {1, 11, 1}, false, {0, 5, 0}, {1, 3, 1}}, 8, true, 0.9},
    {{1, 8, {6, 9, 16}, {3, 3, 3}, false, {1, 1, 1}, {2, 1, 1}}, 8, false, 0.9},
    {{1, 8, {5, 6, 9}, {3, 3, 4}, false, {1, 0, 2}, {2, 1, 2}, {T, C, T}}, 8, true, 0.9},
    {{1, 8, {7, 5, 16}, {2, 2, 3}, false, {1, 0, 1}, {5, 2, 1}, {C, V, T}}, 8, false, 0.9},
    {{1, 8, {2, 5, 6}, {3, 1, 3}, false, {0, 0, 1}, {3, 1, 2}, {V, C, T}}, 8, true, 0.9},
    // With more channels, arrays that are not aligned, and a halo in parts.
    {{1, 64, {1, 10, 48}, {1, 3, 9}, false, {0, 1, 4}, {1, 2, 2}}, 40, false, 0.3},
    {{1, 70, {1, 16, 16}, {1, 3, 3}, false, {0, 1, 1}, {1, 2, 1}}, 128, true, 0.2},
    {{1, 6, {1, 16, 16}, {1, 3, 3}, false, {0, 1, 1}, {1, 2, 1}}, 6, false, 0.9, 1},
    {{1, 7, {1, 2, 312}, {1, 1, 95}, false, {0, 0, 47}, {1, 1, 3}}, 7, true, 0.9, 0, 100},
    // A halo that shared memory holds in parts: of 2-D and flat grids.
    {{1, 7, {1, 2, 104}, {1, 1, 95}}, 7, true, 0.9, 0, 100},
    {{1, 70, {1, 1, 200}, {1, 1, 181}}, 70, false, 0.2},
    // More octets than a word of bits has.
    {{1, 7, {1, 2, 160}, {1, 1, 150}, false, {0, 0, 149}, {1, 1, 1}, {C, C, T}}, 7, false, 0.9},
};

}  // namespace

void check_attention_mma(bool has_terms) {
  for (const MmaCase& one : kCases) {
    // Mutants are compiled for few channels.
    if (!only_float32 || std::max(one.c.channels, one.value_channels) <= 32)
      check_mma(one, has_terms);
  }
}

void check_attention_mma_random(Case c) {
  const auto below = [](int64_t n) { return static_cast<int64_t>(randomness() % n); };
  MmaCase a{c, 1 + below(40), below(2) == 0, (below(4) == 0 ? -2.0 : 2.0) / double(c.channels + 2)};
  a.shift = static_cast<int>(below(3));
  check_mma(a, below(2) == 0);
}

// An infinite value spoils pixels that have it in their windows, and others up to 14 columns and a
// row further, of its class. The bits of the rest stay.
void check_attention_mma_infinite(const Case& c) {
  using T = c10::Half;
  const AttentionCase a{c, 16, false, 0.5};
  const int64_t C = c.channels, N = c.pixels(), at = 11 * 48 + 40;
  const std::vector<T> x = rounded<T>(random_eighths(C * N));
  std::vector<T> values = x;
  const Array<T> q(x), clean(C * N), spoiled(C * N);
  const Array<float> lse(N);
  ++comparisons;
  try {
    for (const auto* y : {&clean, &spoiled}) {
      const Array<T> v(values);
      circulant::attention_mma(q.at, q.at, v.at, y->at, lse.at, nullptr, {}, a.problem(), nullptr);
      values[3 * N + at] = std::numeric_limits<T>::infinity();
    }
    const std::vector<T> before = clean.read(0, C * N), after = spoiled.read(0, C * N);
    for (int64_t i = 0; i < C * N; ++i) {
      const int64_t down = std::abs(i % N / 48 - 11),
                    across = std::abs((i % 48 - 40 + 24 + 48) % 48 - 24);
      const int64_t h = c.dilation[1], w = c.dilation[2];
      const bool same_class = i / N == 3 && down % h == 0 && across % w == 0;
      const bool is_seen = same_class && down / h <= 1 && across / w <= 2;
      const bool may_change = same_class && down / h <= 1 + 1 && across / w <= 2 + 14;
      if (is_seen ? !std::isfinite(float(after[i])) : may_change || before[i].x == after[i].x)
        continue;
      return report(c, "mma infinite",
                    "element " + std::to_string(i) + " is " + std::to_string(float(after[i])) +
                        ", was " + std::to_string(float(before[i])));
    }
  } catch (const std::exception& error) {
    report(c, "mma infinite", error.what());
  }
}

void check_attention_mma_infinite() {
  Case c{1, 16, {1, 24, 48}, {1, 3, 5}};
  check_attention_mma_infinite(c);
  c.dilation[1] = 2, c.dilation[2] = 3;
  check_attention_mma_infinite(c);
}

// One pixel: S = lse and y = v. More groups than a launch can have.
void check_attention_mma_groups() {
  using T = c10::Half;
  const int64_t step = circulant::kMaxGridGroups, groups = step + 3, C = 9;
  const Case c{groups, C, {1, 1, 1}, {1, 1, 1}};
  const AttentionCase a{c, C, false, 0.5};
  const std::vector<double> x = random_eighths(groups * C), dy = random_eighths(groups * C);
  std::vector<double> lse(groups), gradient(groups * C);
  for (int64_t g = 0; g < groups; ++g) {
    double ds = 0;  // where delta is zero
    for (int64_t i = g * C; i < (g + 1) * C; ++i) {
      lse[g] += 0.5 * x[i] * x[i];
      ds += dy[i] * x[i];
    }
    for (int64_t i = g * C; i < (g + 1) * C; ++i) gradient[i] = 0.5 * ds * x[i];
  }
  const Array<T> x_(rounded<T>(x)), dy_(rounded<T>(dy)), y_(groups * C), dq_(groups * C),
      dk_(groups * C), dv_(groups * C);
  const Array<float> lse_(groups), delta_(rounded<float>(std::vector<double>(groups)));
  const Only only(3, 0);
  try {
    circulant::attention_mma(x_.at, x_.at, x_.at, y_.at, lse_.at, nullptr, {}, a.problem(),
                             nullptr);
    circulant::attention_mma_backward(dy_.at, x_.at, x_.at, x_.at, lse_.at, delta_.at, nullptr,
                                      dq_.at, dk_.at, dv_.at, {}, {}, a.problem(), nullptr);
  } catch (const std::exception& error) {
    return report(c, "mma of many groups", error.what());
  }
  for (const int64_t g : {int64_t(0), step}) {
    const auto check = [&](const std::string& what, const auto& got, const std::vector<double>& all,
                           int64_t size, double tolerance) {
      const auto begin = all.begin() + g * size;
      compare_within(c, "mma " + what + " of many groups", got.read(g * size, 3 * size),
                     {begin, begin + 3 * size}, tolerance);
    };
    check("lse", lse_, lse, 1, 1e-4);
    check("y", y_, x, C, 1e-2);
    check("dq", dq_, gradient, C, 2e-2);
    check("dk", dk_, gradient, C, 2e-2);
    check("dv", dv_, dy, C, 1e-2);
  }
}

// More than 2^31 features, of which only two are not zero. The window is one pixel.
void check_attention_mma_offsets() {
  using T = c10::Half;
  const int64_t G = 17, C = 128;
  const Case c{G, C, {1, 1024, 1024}, {1, 1, 1}};
  const AttentionCase a{c, C, false, 0.5};
  const int64_t N = c.pixels(), last = G * C * N - 1, other = last - 5 * N;
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  if (free / sizeof(T) / 5 < static_cast<size_t>(G * C * N)) {
    std::printf("not checked, too little memory: tensor cores at offsets above 2^31\n");
    return;
  }
  Array<T> x(G * C * N), y(G * C * N), dk(G * C * N), dv(G * C * N);
  Array<float> lse(G * N), delta(G * N);
  for (Array<T>* array : {&x, &y, &dk, &dv}) check_cuda(cudaMemset(array->at, 0, array->bytes()));
  for (Array<float>* array : {&lse, &delta}) check_cuda(cudaMemset(array->at, 0, array->bytes()));
  x.write(last, 3);
  x.write(other, 2);
  const Only only(0, 24);
  const auto compare_both = [&](const std::string& what, const Array<T>& got, double factor) {
    compare_within(c, "mma " + what, got.read(last, 1), {3 * factor}, 1e-3 * factor);
    compare_within(c, "mma " + what, got.read(other, 1), {2 * factor}, 1e-3 * factor);
  };
  try {
    // S = 0.5 (3 * 3 + 2 * 2) = lse; dP is twice that, and delta zero. The memory of y is that of
    // dq from there on.
    circulant::attention_mma(x.at, x.at, x.at, y.at, lse.at, nullptr, {}, a.problem(), nullptr);
    compare_both("y at an offset above 2^31", y, 1);
    compare_within(c, "mma lse at the last offset", lse.read(G * N - 1, 1), {6.5}, 1e-5);
    circulant::attention_mma_backward(x.at, x.at, x.at, x.at, lse.at, delta.at, nullptr, y.at,
                                      dk.at, dv.at, {}, {}, a.problem(), nullptr);
    compare_both("dq at an offset above 2^31", y, 0.5 * 13);
    compare_both("dk at an offset above 2^31", dk, 0.5 * 13);
    compare_both("dv at an offset above 2^31", dv, 1);
  } catch (const std::exception& error) {
    report(c, "tensor cores at offsets above 2^31", error.what());
  }
}

// Which kernels run, and how many blocks fit a multiprocessor.
void check_attention_mma_plan() {
#ifdef CUDA_ON_HOST
  const auto expect = [](const Case& c, bool is_right, const std::string& what) {
    ++comparisons;
    if (!is_right) report(c, "mma plan", what);
  };
  const Case readme{2, 64, {1, 128, 96}, {1, 15, 15}}, small{1, 3, {1, 64, 64}, {1, 3, 3}},
      wide{1, 129, {1, 64, 64}, {1, 15, 15}};
  const Case few{1, 48, {1, 96, 96}, {1, 7, 7}};
  Case truncated = readme, even = readme, dilated = readme, by_pixels = few, by_rows = few;
  truncated.boundary[1] = kTruncated;
  even.window[2] = 16;
  dilated.dilation[1] = dilated.dilation[2] = 2;
  by_pixels.dilation[2] = 2;
  by_rows.dilation[1] = 2;
  const auto problem = [](const Case& c) {
    return AttentionCase{c, c.channels, false, 0.125}.problem();
  };
  for (const int shared_memory : {228, 164, 100}) {
    choose_device(108, shared_memory);
    for (const Case& c : {readme, truncated, even, dilated, few, by_rows}) {
      expect(c, circulant::uses_mma(problem(c)), "not on tensor cores");
    }
    for (const Case& c : {small, wide, by_pixels}) {
      expect(c, !circulant::uses_mma(problem(c)), "on tensor cores");
    }
    const circulant::MmaPlan plan = circulant::plan_mma(problem(readme), {64, 0, 2});
    expect(readme, circulant::current_device().resident(plan.shared) >= 2, "one block");
  }
  // Bias and sums of a window that is too large for shared memory, or has offsets beyond its dim.
  choose_device(108, 164);
  const Case large{1, 64, {1, 256, 256}, {1, 127, 127}};
  Case column{1, 64, {1, 512, 1}, {1, 127, 3}};
  column.boundary[2] = kTruncated;
  for (const Case& c : {readme, large, column}) {
    expect(c, circulant::uses_mma(problem(c), false), "not on tensor cores");
    expect(c, circulant::uses_mma(problem(c), true) == (c.offsets() == readme.offsets()), "bias");
  }
  // Norms of queries and of more keys.
  Case halo{1, 64, {1, 16, 16}, {1, 15, 15}};
  halo.boundary[1] = halo.boundary[2] = kValid;
  const circulant::AttentionProblem p = AttentionCase{halo, 64, true, 0.125}.problem();
  expect(halo,
         circulant::attention_scratch<c10::Half>(p) * halo.pixels() >= halo.pixels() + halo.keys(),
         "too little scratch memory");
  choose_device(72, 64);
  expect(readme, !circulant::uses_mma(problem(readme)), "on tensor cores of sm_75");
#endif
}

}  // namespace check
