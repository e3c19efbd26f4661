// Compares fused attention with terms of the scores, and all of its gradients, with the definition,
// computed in float64: biases of heads and of rows of keys, some -infinity, some queries without
// keys.
#include "../../../csrc/cuda/attention_plan.h"
#include "attention_checks.h"

namespace check {

void check_biased_attention(const Case& c) {
  if (c.channels == 0) return;  // the ops refuse it
  static int count = 0;
  // More groups than the case has, where it is small.
  Case with_groups = c;
  const bool small = c.keys() * c.offsets() * c.channels < 60000;
  if (small) with_groups.groups *= count % 2 ? 6 : 4;
  const int64_t G = with_groups.groups;
  // Divisors of the groups: each term missing or not, a row for some or all.
  const int64_t halves = G % 2 == 0 ? G / 2 : 1,
                counts[][2] = {
                    {halves, halves}, {0, G}, {2 * halves == G ? 2 : G, 0}, {1, 1}, {G, 0},
                    {halves, G},      {0, 1}};
  const auto value_channels = [&c](int count) {
    return count % 5 == 0 ? c.channels + 61 : c.channels % 7 + 1;
  };
  check_kinds(with_groups, count, value_channels,
              [&](AttentionReference& r, auto dtype, const char* name) {
                const auto& [heads, rows] = counts[count % 7];
                // exp(128) is infinite in float32.
                r.draw_terms(heads, rows, count % 3 == 0 ? 128 : 0);
                check_dtype<decltype(dtype)>(r.a, r, name);
              });
}

// Sums of more rows than a launch can have.
void check_sums_of_many_rows() {
  const int64_t rows = circulant::kMaxGridGroups + 3, count = 5, width = 2;
  const std::vector<double> x = random_eighths(rows * count * width);
  std::vector<double> expected(rows * width);
  for (int64_t n = 0; n < rows * count; ++n) {
    for (int64_t i = 0; i < width; ++i) expected[n / count * width + i] += x[n * width + i];
  }
  const Array<float> sums(rounded<float>(x)), result(rows * width);
  const Only only(3, 0);
  circulant::sum_rows("sum_rows", sums.at, result.at, rows, count, width, nullptr);
  const Case c{rows, 1, {1, 1, 1}, {1, 1, 1}};
  for (const int64_t row : {int64_t(0), circulant::kMaxGridGroups}) {
    const int64_t at = row * width;
    compare_within(c, "sums of many rows", result.read(at, 3 * width),
                   {expected.begin() + at, expected.begin() + at + 3 * width}, 0);
  }
}

// With one pixel, S = lse = q k + bias + key_bias, y = v, and the gradients at another y are not
// zero.
void check_biased_attention_groups() {
  check_sums_of_many_rows();
  const int64_t step = circulant::kMaxGridGroups, heads = 3, row_groups = 6,
                groups = (step / row_groups + 1) * row_groups;
  const Case c{groups, 1, {1, 1, 1}, {1, 1, 1}};
  const AttentionCase a{c, 1, false, 0.5};
  const std::vector<double> q = random_eighths(groups), k = random_eighths(groups),
                            v = random_eighths(groups), dy = random_eighths(groups),
                            bias = random_eighths(heads), dlse = random_eighths(groups),
                            key_bias = random_eighths(groups / row_groups);
  std::vector<double> lse(groups), ds(groups);
  for (int64_t g = 0; g < groups; ++g) {
    lse[g] = 0.5 * q[g] * k[g] + bias[g % heads] + key_bias[g / row_groups];
    ds[g] = dy[g] * (v[g] - k[g]) + dlse[g];  // k stands for y
  }
  const Array<float> q_(rounded<float>(q)), k_(rounded<float>(k)), v_(rounded<float>(v)),
      dy_(rounded<float>(dy)), bias_(rounded<float>(bias)), key_bias_(rounded<float>(key_bias)),
      dlse_(rounded<float>(dlse)), y_(groups), lse_(rounded<float>(lse)), scratch_(2 * groups),
      dq_(groups), dk_(groups), dv_(groups), offset_sums(groups), key_sums(groups);
  const circulant::ScoreTerms<float> terms{
      bias_.at, key_bias_.at, static_cast<int>(heads), static_cast<int>(row_groups), 1, 1};
  const Only only(3, 0, 3);
  try {
    circulant::attention(q_.at, k_.at, v_.at, y_.at, lse_.at, nullptr, terms, a.problem(), nullptr);
    circulant::attention_backward(dy_.at, q_.at, k_.at, v_.at, k_.at, lse_.at, dlse_.at,
                                  scratch_.at, dq_.at, dk_.at, dv_.at, terms,
                                  {offset_sums.at, 1, key_sums.at}, a.problem(), nullptr);
  } catch (const std::exception& error) {
    return report(c, "biased attention of many groups", error.what());
  }
  // Groups 0 to 2 and those that a block computes after them.
  for (int64_t g : {int64_t(0), int64_t(2), step, step + 2}) {
    const auto compare = [&](const char* what, const Array<float>& got, int64_t at,
                             double expected) {
      compare_within(c, std::string(what) + " of many groups", got.read(at, 1), {expected}, 1e-5);
    };
    compare("biased attention lse", lse_, g, lse[g]);
    compare("sum over keys", key_sums, g, ds[g]);
    compare("sum over offsets", offset_sums, g % heads * (groups / heads) + g / heads, ds[g]);
  }
}

// The sums over offsets of the last tile, of pixels of the last row. The features are 0: P = 1 / K,
// and with y = 0 and dlse = K, dS = 1.
void check_biased_attention_offsets() {
  const int64_t K = 16411;
  const Case c{17, 1, {1, 64, K}, {1, 1, K}};
  const AttentionCase a{c, 1, false, 0.5};
  const AttentionProblem p = a.problem();
  const int64_t N = c.pixels(), G = c.groups, tiles = circulant::attention_tiles<float>(p);
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  if (free / sizeof(float) / 2 < static_cast<size_t>(G * tiles * K)) {
    std::printf("not checked, too little memory: sums over offsets above 2^31\n");
    return;
  }
  Array<float> x(G * N), lse(G * N), dlse(G * N), scratch(2 * G * N), bias(K), dx(G * N),
      sums(G * tiles * K);
  for (Array<float>* array : {&x, &lse, &dlse, &scratch, &bias, &dx, &sums})
    check_cuda(cudaMemset(array->at, 0, array->bytes()));
  for (int64_t i = N - 128; i < N; ++i) {
    lse.write((G - 1) * N + i, static_cast<float>(std::log(double(K))));
    dlse.write((G - 1) * N + i, static_cast<float>(K));
  }
  const circulant::ScoreTerms<float> terms{
      bias.at, nullptr, 1, 1, static_cast<int>(K), static_cast<int>(N)};
  const Only only(0, 1, 3);
  try {
    circulant::attention_backward(x.at, x.at, x.at, x.at, x.at, lse.at, dlse.at, scratch.at, dx.at,
                                  dx.at, dx.at, terms, {sums.at, tiles, nullptr}, p, nullptr);
  } catch (const std::exception& error) {
    return report(c, "sums over offsets above 2^31", error.what());
  }
  const int width =
      circulant::plan_attention("attention", p.pattern, G, 1, 1, sizeof(float), true).tile.w();
  compare_within(c, "sums over offsets above 2^31", sums.read((G * tiles - 1) * K, K),
                 std::vector<double>(K, static_cast<double>(K % width)), 1e-2);
}

}  // namespace check
