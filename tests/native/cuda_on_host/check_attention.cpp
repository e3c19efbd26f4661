// Compares fused attention and its gradients with the definition, computed in float64.
//
// Inputs are small multiples of 1/8, which every dtype holds; what follows them is not exact, and
// tolerances are bounds of the roundings in the type that is summed in. An entry too many or too
// few, or in the wrong place, is far above them.
#include <limits>

#include "../../../csrc/cuda/attention_block.cuh"
#include "check.h"

namespace check {
namespace {

using circulant::AttentionProblem;

struct AttentionCase {
  const Case& c;
  int64_t value_channels;
  bool distance;
  double scale;

  AttentionProblem problem() const {
    const double log2e = 1.4426950408889634;
    return {c.groups,
            Pattern(c.geometry()),
            {static_cast<int>(c.channels), static_cast<int>(value_channels), distance, scale,
             (distance ? -0.5 : 1.0) * scale * log2e}};
  }
};

int64_t size_of(const std::vector<double>& numbers) { return static_cast<int64_t>(numbers.size()); }

double largest(const std::vector<double>& numbers) {
  double most = 0;
  for (const double number : numbers) {
    if (std::isfinite(number)) most = std::max(most, std::abs(number));
  }
  return most;
}

// Inputs, results, and bounds of what the errors of the results are made of.
struct AttentionReference {
  std::vector<double> q, k, v, dy;
  std::vector<double> y, lse, dq, dk, dv;
  double scores = 0, products = 0;     // the most that sums of magnitudes over channels come to
  double value_products = 0;           // the same for dy and v
  double column_sum = 0, largest = 0;  // of P, and of the magnitudes of all inputs

  explicit AttentionReference(const AttentionCase& a) : a(a) {
    const Case& c = a.c;
    const int64_t G = c.groups, N = c.pixels(), C = c.channels, C_v = a.value_channels;
    q = random_eighths(G * C * N);
    k = random_eighths(G * C * N);
    v = random_eighths(G * C_v * N);
    dy = random_eighths(G * C_v * N);
    for (const auto* x : {&q, &k, &v, &dy}) largest = std::max(largest, check::largest(*x));
    y.resize(G * C_v * N);
    lse.resize(G * N);
    dq.resize(G * C * N);
    dk.resize(G * C * N);
    dv.resize(G * C_v * N);
    for (int64_t i = 0; i < N; ++i) columns.push_back(columns_of(c, i));
  }

  // y and lse of these v.
  void forward() {
    const int64_t N = a.c.pixels(), C_v = a.value_channels;
    std::fill(y.begin(), y.end(), 0.0);
    for (int64_t row = 0; row < a.c.groups * N; ++row) {
      const int64_t g = row / N, i = row % N;
      std::vector<double> s;
      double most = -std::numeric_limits<double>::infinity(), total = 0;
      for (const int64_t j : columns[i]) s.push_back(score(g, i, j));
      for (const double one : s) most = std::max(most, one);
      for (const double one : s) total += std::exp(one - most);
      lse[row] = most + std::log(total);
      for (size_t n = 0; n < s.size(); ++n) {
        const double weight = std::exp(s[n] - lse[row]);
        for (int64_t c = 0; c < C_v; ++c)
          y[(g * C_v + c) * N + i] += weight * v[(g * C_v + c) * N + columns[i][n]];
      }
    }
  }

  // The gradients, from these y and lse.
  void backward() {
    const int64_t N = a.c.pixels(), C = a.c.channels, C_v = a.value_channels;
    std::vector<double> sums(a.c.groups * N);
    for (auto* x : {&dq, &dk, &dv}) std::fill(x->begin(), x->end(), 0.0);
    for (int64_t row = 0; row < a.c.groups * N; ++row) {
      const int64_t g = row / N, i = row % N;
      double delta = 0;
      for (int64_t c = 0; c < C_v; ++c) {
        const int64_t at = (g * C_v + c) * N + i;
        delta += dy[at] * y[at];
      }
      for (const int64_t j : columns[i]) {
        const double weight = std::exp(score(g, i, j) - lse[row]);
        double dp = 0, magnitude = 0;
        for (int64_t c = 0; c < C_v; ++c) {
          const double product = dy[(g * C_v + c) * N + i] * v[(g * C_v + c) * N + j];
          dp += product;
          magnitude += std::abs(product);
          dv[(g * C_v + c) * N + j] += weight * dy[(g * C_v + c) * N + i];
        }
        value_products = std::max({value_products, magnitude, std::abs(delta)});
        column_sum = std::max(column_sum, sums[g * N + j] += weight);
        const double ds = a.scale * weight * (dp - delta);
        for (int64_t c = 0; c < C; ++c) {
          const int64_t at_i = (g * C + c) * N + i, at_j = (g * C + c) * N + j;
          dq[at_i] += ds * (k[at_j] - (a.distance ? q[at_i] : 0));
          dk[at_j] += ds * (q[at_i] - (a.distance ? k[at_j] : 0));
        }
      }
    }
  }

 private:
  double score(int64_t g, int64_t i, int64_t j) {
    const int64_t N = a.c.pixels(), C = a.c.channels;
    double sum = 0, magnitude = 0;
    for (int64_t c = 0; c < C; ++c) {
      const double x = q[(g * C + c) * N + i], y = k[(g * C + c) * N + j];
      const double term = a.distance ? -(x - y) * (x - y) / 2 : x * y;
      sum += term;
      magnitude += std::abs(term);
    }
    products = std::max(products, std::abs(a.scale) * magnitude);
    scores = std::max(scores, std::abs(a.scale * sum));
    return a.scale * sum;
  }

  const AttentionCase& a;
  std::vector<std::vector<int64_t>> columns;
};

template <class T>
void compare_within(const Case& c, const std::string& what, const std::vector<T>& got,
                    const std::vector<double>& expected, double tolerance) {
  ++comparisons;
  for (size_t i = 0; i < got.size(); ++i) {
    const double have = static_cast<double>(got[i]), want = expected[i];
    if (want == have || std::abs(want - have) <= tolerance) continue;
    return report(c, what,
                  "number " + std::to_string(i) + " is " + std::to_string(have) + " instead of " +
                      std::to_string(want) + ", tolerance " + std::to_string(tolerance));
  }
}

// Sets all bits of results: NaN.
template <class... Arrays>
void unset(const Arrays&... arrays) {
  (check_cuda(cudaMemset(arrays.at, 0xff, arrays.bytes())), ...);
}

template <class T>
void check_dtype(const AttentionCase& a, AttentionReference& r, const std::string& dtype) {
  using A = circulant::accumulate_t<T>;
  const Case& c = a.c;
  const double eps = std::numeric_limits<A>::epsilon();
  // float16 has 11 bits, bfloat16 has 8.
  const double coarse = std::is_same<T, A>::value           ? eps
                        : std::is_same<T, c10::Half>::value ? 0x1p-10
                                                            : 0x1p-7;
  const std::string name = std::string(a.distance ? "distance " : "dot ") + dtype + ", values " +
                           std::to_string(a.value_channels);
  const AttentionProblem p = a.problem();
  const double K = static_cast<double>(c.offsets());
  try {
    const Array<T> q(rounded<T>(r.q)), k(rounded<T>(r.k)), dy(rounded<T>(r.dy));
    std::vector<double> finite = r.v;
    if (c.infinite) r.v[randomness() % r.v.size()] = std::numeric_limits<double>::infinity();
    r.forward();
    // The relative error of a weight: of a score and of lse, of exp2 and its argument, of the sum
    // and its reciprocal.
    const double score_error = (static_cast<double>(c.channels) + 8) * eps * r.products;
    const double weight_error = 2 * score_error + (K + 16 + 4 * r.scores) * eps;
    {
      const Array<T> v(rounded<T>(r.v));
      const Array<T> y(size_of(r.y));
      const Array<A> lse(size_of(r.lse));
      unset(y, lse);
      circulant::attention(q.at, k.at, v.at, y.at, lse.at, p, nullptr);
      compare_within(c, "attention y " + name, y.read(0, y.size), r.y,
                     (weight_error + K * eps + coarse) * r.largest);
      compare_within(c, "attention lse " + name, lse.read(0, lse.size), r.lse,
                     score_error + (K + 16 + 4 * r.scores) * eps);
    }
    r.v = finite;
    r.forward();
    // The gradients are those at the y and lse that are given.
    const std::vector<T> y_given = rounded<T>(r.y);
    const std::vector<A> lse_given(r.lse.begin(), r.lse.end());
    r.y.assign(y_given.begin(), y_given.end());
    r.lse.assign(lse_given.begin(), lse_given.end());
    const Array<T> v(rounded<T>(r.v)), y(y_given);
    const Array<A> lse(lse_given), delta(size_of(r.lse));
    const Array<T> dq(size_of(r.dq)), dk(size_of(r.dk)), dv(size_of(r.dv));
    unset(delta, dq, dk, dv);
    circulant::attention_backward(dy.at, q.at, k.at, v.at, y.at, lse.at, delta.at, dq.at, dk.at,
                                  dv.at, p, nullptr);
    r.backward();
    const double sums = std::max(1.0, r.column_sum);
    const double ds = sums * 2 * r.value_products *
                      (weight_error + (static_cast<double>(a.value_channels) + 8 + K) * eps);
    const double tolerance = 2 * std::abs(a.scale) * ds * r.largest;
    compare_within(c, "attention dq " + name, dq.read(0, dq.size), r.dq,
                   tolerance + coarse * largest(r.dq));
    compare_within(c, "attention dk " + name, dk.read(0, dk.size), r.dk,
                   tolerance + coarse * largest(r.dk));
    compare_within(c, "attention dv " + name, dv.read(0, dv.size), r.dv,
                   sums * (weight_error + K * eps) * r.largest + coarse * largest(r.dv));
  } catch (const std::exception& error) {
    report(c, "attention " + name, error.what());
  }
}

}  // namespace

void check_attention(const Case& c) {
  if (c.channels == 0) return;  // the ops refuse it
  static int count = 0;
  for (const bool distance : {false, true}) {
    // More and fewer channels of values than of keys, sometimes more than a block has.
    const AttentionCase a{c, count % 3 == 0 ? c.channels + 61 : c.channels % 7 + 1, distance,
                          (count % 5 == 1 ? -1.5 : 2.0) / static_cast<double>(c.channels + 2)};
    AttentionReference r(a);
#ifdef CHECK_FLOAT32_ONLY
    check_dtype<float>(a, r, "float32");
#else
    // Of four runs in a row each has another dtype, beginning with another.
    const int dtype = (count + count / 4) % 4;
    if (dtype == 0) check_dtype<float>(a, r, "float32");
    if (dtype == 1) check_dtype<double>(a, r, "float64");
    if (dtype == 2) check_dtype<c10::Half>(a, r, "float16");
    if (dtype == 3) check_dtype<c10::BFloat16>(a, r, "bfloat16");
#endif
    ++count;
  }
}

// Two blocks have room on a multiprocessor of 164 or 228 KiB, in the problem of the README.
void check_attention_plan() {
#ifdef CUDA_ON_HOST
  const Case c{2, 64, {1, 128, 96}, {1, 15, 15}};
  for (const int shared_memory : {164, 228}) {
    choose_device(108, shared_memory);
    const circulant::AttentionPlan plan =
        circulant::choose_attention(Pattern(c.geometry()), c.groups, 64, 64, sizeof(float));
    ++comparisons;
    if (circulant::current_device().resident(plan.shared) < 2) {
      report(c, "attention plan",
             "one block of " + std::to_string(plan.shared) + " bytes on a multiprocessor");
    }
  }
#endif
}

// With one pixel, S = lse = q k, y = v, and the gradients at another y are not zero.
void check_attention_groups() {
  const int64_t step = circulant::kMaxGridGroups, groups = step + 3;
  const Case c{groups, 1, {1, 1, 1}, {1, 1, 1}};
  const AttentionCase a{c, 1, false, 0.5};
  std::vector<double> q = random_eighths(groups), k = random_eighths(groups),
                      v = random_eighths(groups), dy = random_eighths(groups);
  std::vector<double> lse(groups), dq(groups), dk(groups);
  for (int64_t g = 0; g < groups; ++g) {
    lse[g] = 0.5 * q[g] * k[g];
    dq[g] = 0.5 * dy[g] * (v[g] - k[g]) * k[g];  // k stands for y
    dk[g] = 0.5 * dy[g] * (v[g] - k[g]) * q[g];
  }
  const Array<float> q_(rounded<float>(q)), k_(rounded<float>(k)), v_(rounded<float>(v)),
      dy_(rounded<float>(dy)), y_(groups), lse_(rounded<float>(lse)), delta_(groups), dq_(groups),
      dk_(groups), dv_(groups);
  const Only only(3, 0);
  try {
    circulant::attention(q_.at, k_.at, v_.at, y_.at, lse_.at, a.problem(), nullptr);
    circulant::attention_backward(dy_.at, q_.at, k_.at, v_.at, k_.at, lse_.at, delta_.at, dq_.at,
                                  dk_.at, dv_.at, a.problem(), nullptr);
  } catch (const std::exception& error) {
    return report(c, "attention of many groups", error.what());
  }
  const auto compare = [&](const std::string& what, const Array<float>& got,
                           const std::vector<double>& expected) {
    for (const int64_t first : {int64_t(0), step}) {
      compare_within(c, what + " of many groups", got.read(first, 3),
                     {expected.begin() + first, expected.begin() + first + 3}, 1e-5);
    }
  };
  compare("attention y", y_, v);
  compare("attention lse", lse_, lse);
  compare("attention dq", dq_, dq);
  compare("attention dk", dk_, dk);
  compare("attention dv", dv_, dy);
}

// More than 2^31 features, of which only two of the last pixel are not zero. The window is that
// pixel alone.
void check_attention_offsets() {
  const int64_t C = 1025;
  const Case c{2, C, {1, 1024, 1024}, {1, 1, 1}};
  const AttentionCase a{c, C, false, 0.5};
  const int64_t N = c.pixels(), last = 2 * C * N - 1, other = C * N + N - 1;
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  if (free / sizeof(float) / 6 < static_cast<size_t>(2 * C * N)) {
    std::printf("not checked, too little memory: attention at offsets above 2^31\n");
    return;
  }
  Array<float> x(2 * C * N), other_y(2 * C * N), y(2 * C * N), lse(2 * N), delta(2 * N),
      dk(2 * C * N), dv(2 * C * N);
  for (Array<float>* array : {&x, &other_y, &y, &lse, &delta, &dk, &dv})
    check_cuda(cudaMemset(array->at, 0, array->bytes()));
  x.write(last, 3);
  x.write(other, 2);
  other_y.write(last, 1);
  const Only only(0, 40);
  const auto compare = [&](const std::string& what, const Array<float>& got, double factor) {
    for (const int64_t at : {last, other}) {
      const double expected = factor * (at == last ? 3 : 2);
      compare_within(c, what + " at an offset above 2^31", got.read(at, 1), {expected},
                     1e-5 * expected);
    }
  };
  try {
    // S = 0.5 (3 * 3 + 2 * 2) = lse.
    circulant::attention(x.at, x.at, x.at, y.at, lse.at, a.problem(), nullptr);
    compare("attention y", y, 1);
    compare_within(c, "attention lse at the last offset", lse.read(2 * N - 1, 1), {6.5}, 1e-5);
    // With a y of 1 at the last offset, dS = dP - delta = 13 - 3. The memory of y is that of dq
    // from here on.
    circulant::attention_backward(x.at, x.at, x.at, x.at, other_y.at, lse.at, delta.at, y.at, dk.at,
                                  dv.at, a.problem(), nullptr);
    compare("attention dq", y, 0.5 * 10);
    compare("attention dk", dk, 0.5 * 10);
    compare("attention dv", dv, 1);
  } catch (const std::exception& error) {
    report(c, "attention at offsets above 2^31", error.what());
  }
}

}  // namespace check
