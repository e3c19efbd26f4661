// Compares the adjacency with a softmax of scores written from the definition, in float64.
//
// Inputs are small multiples of 1/8, which every dtype holds. Tolerances are bounds of the
// roundings of scores, exponentials and sums, relative to each entry.
#include <limits>

#include "attention_reference.h"

namespace check {
namespace {

// The rows of A, as torch.softmax has them: NaN where a score is NaN or +infinity, or all are
// -infinity; zero where a key is absent.
std::vector<double> softmax_rows(const AttentionCase& a, AttentionReference& r) {
  std::vector<double> expected;
  for (int64_t row = 0; row < a.c.groups * a.c.pixels(); ++row) {
    const std::vector<double> s = r.scores_of(row);
    double most = -std::numeric_limits<double>::infinity(), total = 0;
    for (const double one : s) most = std::max(most, one);
    for (const double one : s) total += std::exp(one - most);
    const std::vector<int64_t> columns = columns_of(a.c, row % a.c.pixels());
    for (size_t n = 0; n < s.size(); ++n) {
      expected.push_back(columns[n] < 0 ? 0 : std::exp(s[n] - most) / total);
    }
  }
  return expected;
}

template <class T>
void compare_entries(const Case& c, const std::string& what, const std::vector<T>& got,
                     const double* expected, double relative) {
  ++comparisons;
  for (size_t i = 0; i < got.size(); ++i) {
    const double have = static_cast<double>(got[i]), want = expected[i];
    if (std::isnan(want) ? std::isnan(have)
                         : std::abs(want - have) <= relative * want + 1e-7 * (sizeof(T) == 2)) {
      continue;
    }
    return report(c, what,
                  "entry " + std::to_string(i) + " is " + std::to_string(have) + " instead of " +
                      std::to_string(want) + ", relative tolerance " + std::to_string(relative));
  }
}

template <class T>
void check_dtype(const AttentionCase& a, AttentionReference& r, const std::string& dtype) {
  using A = circulant::accumulate_t<T>;
  const Case& c = a.c;
  const double eps = std::numeric_limits<A>::epsilon();
  // Entries of float16 below 2^-14 are multiples of 2^-24.
  const double coarse = spacing<T>();
  const std::string name = std::string("adjacency ") + (a.distance ? "distance " : "dot ") + dtype;
  r.forward();  // bounds the finite scores
  const double relative = 2 * (static_cast<double>(c.channels) + 8) * eps * r.products +
                          (static_cast<double>(c.offsets()) + 16 + 4 * r.scores) * eps + coarse;
  if (c.infinite) {
    const double infinity = std::numeric_limits<double>::infinity();
    r.k[randomness() % r.k.size()] = randomness() % 2 ? infinity : -infinity;
  }
  const std::vector<double> expected = softmax_rows(a, r);
  try {
    const Array<T> x(rounded<T>(r.q)), y(rounded<T>(r.k));
    const Array<T> values(static_cast<int64_t>(expected.size()));
    check_cuda(cudaMemset(values.at, 0xff, values.bytes()));
    circulant::adjacency(x.at, y.at, values.at, a.problem(), nullptr);
    compare_entries(c, name, values.read(0, values.size), expected.data(), relative);
  } catch (const std::exception& error) {
    report(c, name, error.what());
  }
}

}  // namespace

void check_adjacency(const Case& c) {
  if (c.channels == 0) return;  // the op fills A itself
  static int count = 0;
  check_kinds(
      c, count, [](int) { return int64_t(1); },
      [](AttentionReference& r, auto dtype, const char* name) {
        check_dtype<decltype(dtype)>(r.a, r, name);
      });
}

// Rows of three entries.
void check_adjacency_groups() {
  const int64_t step = circulant::kMaxGridGroups, groups = step + 3;
  const Case c{groups, 1, {1, 1, 3}, {1, 1, 3}};
  const AttentionCase a{c, 1, false, 0.5};
  AttentionReference r(a);
  const std::vector<double> expected = softmax_rows(a, r);
  const Array<float> x(rounded<float>(r.q)), y(rounded<float>(r.k));
  const Array<float> values(static_cast<int64_t>(expected.size()));
  check_cuda(cudaMemset(values.at, 0, values.bytes()));
  const Only only(3, 0);
  try {
    circulant::adjacency(x.at, y.at, values.at, a.problem(), nullptr);
  } catch (const std::exception& error) {
    return report(c, "adjacency of many groups", error.what());
  }
  for (const int64_t first : {int64_t(0), 9 * step}) {
    compare_entries(c, "adjacency of many groups", values.read(first, 27), &expected[first], 1e-5);
  }
}

// Only one score of the last row of A is not zero.
void check_adjacency_offsets() {
  const Case c{2, 1, {1, 512, 512}, {1, 65, 129}};
  const AttentionCase a{c, 1, false, 1};
  const int64_t N = c.pixels(), K = c.offsets(), last = 2 * N - 1;
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  if (free / sizeof(float) / 3 < static_cast<size_t>(N * K)) {
    std::printf("not checked, too little memory: entries of an adjacency above 2^32\n");
    return;
  }
  Array<float> x(2 * N), values(2 * N * K);
  for (Array<float>* array : {&x, &values}) {
    check_cuda(cudaMemset(array->at, 0, array->bytes()));
  }
  x.write(last, 2);
  std::vector<double> expected(K, 1 / (static_cast<double>(K) - 1 + std::exp(4.0)));
  const std::vector<int64_t> columns = columns_of(c, N - 1);
  expected[slot_in(columns, N - 1)] *= std::exp(4.0);
  const Only only(0, 1);
  try {
    circulant::adjacency(x.at, x.at, values.at, a.problem(), nullptr);
    compare_entries(c, "adjacency at an offset above 2^32", values.read(last * K, K),
                    expected.data(), 1e-3);
  } catch (const std::exception& error) {
    report(c, "adjacency at an offset above 2^32", error.what());
  }
}

}  // namespace check
