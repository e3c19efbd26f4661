// Compares similarity, apply, apply_transposed and transpose with the definition.
#include "maps_reference.h"

namespace check {
namespace {

// Runs `op` on an array of `size` elements filled with NaN (all bits set).
template <class T, class Op, class Expected>
void check(const Case& c, const std::string& what, int64_t size, const Op& op,
           const Expected& expected) {
  try {
    Array<T> result(size);
    check_cuda(cudaMemset(result.at, 0xff, result.bytes()));
    op(result.at);
    compare_exactly(c, what, result.read(0, size), expected);
  } catch (const std::exception& error) {
    report(c, what, error.what());
  }
}

template <class T>
void check_dtype(const Case& c, const MapsReference& r, const std::string& dtype) {
  const Problem p = c.problem();
  const int64_t entries = static_cast<int64_t>(r.values.size());
  const Array<T> x(rounded<T>(r.x)), y(rounded<T>(r.y)), z(rounded<T>(r.z)),
      values(rounded<T>(r.values));
  for (const bool distance : {false, true}) {
    check<T>(
        c, std::string("similarity ") + (distance ? "distance " : "dot ") + dtype, entries,
        [&](T* out) { circulant::similarity(x.at, y.at, out, p, distance, nullptr); },
        [&](size_t i) { return (distance ? r.distance : r.dot)[i]; });
  }
  for (const bool transposed : {false, true}) {
    if (r.x.empty()) break;  // the ops launch nothing for an empty result
    const std::vector<double>& expected = transposed ? r.applied_transposed : r.applied;
    check<T>(
        c, std::string("apply") + (transposed ? "_transposed " : " ") + dtype,
        static_cast<int64_t>(expected.size()),
        [&](T* out) {
          circulant::apply(values.at, transposed ? z.at : y.at, out, p, transposed, nullptr);
        },
        [&](size_t i) { return expected[i]; });
  }
}

// The entries are distinct as far as their type reaches.
template <class T>
void check_transpose(const Case& c, const MapsReference& r) {
  if (c.has_halo()) return;  // the op refuses it
  std::vector<T> entries(r.values.size());
  for (size_t i = 0; i < entries.size(); ++i) entries[i] = static_cast<T>(i * 7 + 1);
  const Array<T> values(entries);
  check<T>(
      c, "transpose of " + std::to_string(sizeof(T)) + " bytes", values.size,
      [&](T* out) { circulant::transpose(values.at, out, c.problem(), nullptr); },
      [&](size_t i) { return r.transposed[i] < 0 ? T(0) : entries[r.transposed[i]]; });
}

}  // namespace

void check_maps(const Case& c) {
  const MapsReference reference(c);
  check_dtype<float>(c, reference, "float32");
  check_transpose<uint32_t>(c, reference);
  if (only_float32) return;
  check_dtype<double>(c, reference, "float64");
  check_dtype<c10::Half>(c, reference, "float16");
  check_dtype<c10::BFloat16>(c, reference, "bfloat16");
  check_transpose<uint16_t>(c, reference);
  check_transpose<uint64_t>(c, reference);
}

void check_maps_groups() {
  const int64_t step = circulant::kMaxGridGroups, groups = step + 3;
  const Case c{groups, 1, {1, 1, 1}, {1, 1, 1}};
  const Problem p = c.problem();
  const MapsReference reference(c);
  const Array<float> x(rounded<float>(reference.x)), y(rounded<float>(reference.y));
  const Array<float> values(rounded<float>(reference.values));
  const auto either = [&](const std::string& what, const auto& op,
                          const std::vector<double>& expected) {
    const Only only(3, 0);
    Array<float> result(groups);
    op(result.at);
    for (const int64_t first : {int64_t(0), step}) {
      compare_exactly(c, what + " of many groups", result.read(first, 3),
                      [&](size_t i) { return expected[first + i]; });
    }
  };
  either(
      "similarity", [&](float* out) { circulant::similarity(x.at, y.at, out, p, false, nullptr); },
      reference.dot);
  either(
      "apply", [&](float* out) { circulant::apply(values.at, y.at, out, p, false, nullptr); },
      reference.applied);
  either(
      "transpose",
      [&](float* out) {
        circulant::transpose(reinterpret_cast<const uint32_t*>(values.at),
                             reinterpret_cast<uint32_t*>(out), p, nullptr);
      },
      reference.values);
}

// Only entries in the row and the column of the last pixel of the last group are not zero, and only
// its results are compared.
void check_maps_offsets() {
  const Case c{2, 1, {1, 512, 512}, {1, 65, 129}};
  const Problem p = c.problem();
  const int64_t N = c.pixels(), K = c.offsets(), last = 2 * N - 1;
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  if (free / sizeof(float) / 5 < static_cast<size_t>(N * K)) {
    std::printf("not checked, too little memory: offsets above 2^32\n");
    return;
  }
  Array<float> x(2 * N), values(2 * N * K), result(2 * N * K);
  for (Array<float>* array : {&x, &values, &result}) {
    check_cuda(cudaMemset(array->at, 0, array->bytes()));
  }
  const std::vector<int64_t> columns = columns_of(c, N - 1);
  // Every 50th entry of the last row and of the last column is not zero.
  std::vector<double> dot(K), entry(K);
  double applied = 0, applied_transposed = 0;
  x.write(last, 3);
  for (int64_t s = 0; s < K; s += 50) {
    const int64_t j = columns[s];
    if (j == N - 1) continue;
    const std::vector<int64_t> back = columns_of(c, j);
    const double pixel = static_cast<double>(s % 9 - 4), other = static_cast<double>(s % 7 - 3);
    x.write(N + j, static_cast<float>(pixel));
    values.write(last * K + s, static_cast<float>(other));
    values.write((N + j) * K + slot_in(back, N - 1), static_cast<float>(other + 1));
    dot[s] = 3 * pixel;
    entry[s] = other + 1;
    applied += other * pixel;
    applied_transposed += (other + 1) * pixel;
  }
  dot[slot_in(columns, N - 1)] = 9;

  const auto of_last = [&](const std::string& what, unsigned blocks, const auto& op, int64_t from,
                           int64_t count, const auto& expected) {
    const Only only(0, blocks);
    try {
      op();
      compare_exactly(c, what + " at an offset above 2^32", result.read(from, count), expected);
    } catch (const std::exception& error) {
      report(c, what + " at an offset above 2^32", error.what());
    }
  };
  of_last(
      "similarity", 150, [&] { circulant::similarity(x.at, x.at, result.at, p, false, nullptr); },
      last * K, K, [&](size_t s) { return dot[s]; });
  of_last(
      "apply", 1, [&] { circulant::apply(values.at, x.at, result.at, p, false, nullptr); }, last, 1,
      [&](size_t) { return applied; });
  of_last(
      "apply_transposed", 1,
      [&] { circulant::apply(values.at, x.at, result.at, p, true, nullptr); }, last, 1,
      [&](size_t) { return applied_transposed; });
  of_last(
      "transpose", 65,
      [&] {
        circulant::transpose(reinterpret_cast<const uint32_t*>(values.at),
                             reinterpret_cast<uint32_t*>(result.at), p, nullptr);
      },
      last * K, K, [&](size_t s) { return entry[s]; });
}

}  // namespace check
