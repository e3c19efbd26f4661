// Compares similarity, apply and apply_transposed on tensor cores with the definition.
#include "../../../csrc/cuda/map_mma.h"
#include "maps_reference.h"

namespace check {
namespace {

using circulant::MapOp;

struct MapsCase {
  Case c;
  int shift = 0;            // of all arrays, in elements
  int shared_memory = 228;  // of a multiprocessor
  bool spoiled = false;     // whether an entry of A is infinite
};

// Any plan: the best one often has a warp.
circulant::MapMmaPlan some_plan(const Problem& problem, MapOp op) {
  const auto plans = map_mma_plans(problem, op);
  return plans.at(randomness() % plans.size());
}

template <class T>
void similarity(const T* x, const T* y, T* out, const Problem& p, bool distance) {
  similarity_mma(x, y, out, some_plan(p, circulant::kMapSimilarity), distance, nullptr);
}
template <class T>
void apply(const T* values, const T* x, T* out, const Problem& p, bool transposed) {
  const MapOp op = transposed ? circulant::kMapTransposed : circulant::kMapApply;
  apply_mma(values, x, out, some_plan(p, op), transposed, nullptr);
}

template <class T>
void check_mma(const MapsCase& a, const MapsReference& r, const char* dtype) {
  const Case& c = a.c;
  const Problem p = c.problem();
  const auto check = [&](const std::string& what, const std::vector<double>& expected,
                         const auto& op) {
    const std::string name = "mma " + what + " " + dtype + ", shift " + std::to_string(a.shift);
    try {
      const Shifted<T> out(static_cast<int64_t>(expected.size()), a.shift);
      op(out.at());
      compare_exactly(c, name, out.read(), [&](size_t i) { return expected[i]; });
    } catch (const std::exception& error) {
      report(c, name, error.what());
    }
  };
  const Shifted<T> x(rounded<T>(r.x), a.shift), y(rounded<T>(r.y), a.shift),
      z(rounded<T>(r.z), a.shift), values(rounded<T>(r.values), a.shift);
  if (c.channels <= circulant::kMapChannels) {
    for (const bool distance : {false, true}) {
      check(distance ? "similarity distance" : "similarity dot", distance ? r.distance : r.dot,
            [&](T* out) { similarity(x.at(), y.at(), out, p, distance); });
    }
  }
  check("apply", r.applied, [&](T* out) { apply(values.at(), y.at(), out, p, false); });
  check("apply_transposed", r.applied_transposed,
        [&](T* out) { apply(values.at(), z.at(), out, p, true); });
}

void check_mma(const MapsCase& a) {
  choose_device(132, a.shared_memory);
  const MapsReference r(a.c, a.spoiled);
  static int count = 0;
  if (++count % 3 == 0 && !only_float32) {
    check_mma<c10::BFloat16>(a, r, "bfloat16");
  } else {
    check_mma<c10::Half>(a, r, "float16");
  }
}

constexpr Boundary C = kCircular, T = kTruncated, V = kValid;

const MapsCase kCases[] = {
    // A tile, several, incomplete ones; one pixel.
    {{1, 20, {1, 16, 16}, {1, 3, 5}}},
    {{1, 9, {1, 8, 48}, {1, 5, 3}}, 0, 228},
    {{2, 6, {1, 9, 20}, {1, 3, 3}}},
    {{1, 16, {1, 1, 1}, {1, 1, 1}}},
    {{1, 1, {1, 33, 18}, {1, 7, 7}}},
    // Widths that are copied in fours, twos and ones; arrays that are not aligned.
    {{1, 7, {1, 11, 28}, {1, 5, 3}}},
    {{1, 7, {1, 11, 18}, {1, 5, 3}}},
    {{1, 5, {1, 7, 17}, {1, 3, 9}}},
    {{1, 6, {1, 8, 16}, {1, 3, 3}}, 1},
    {{1, 6, {1, 8, 16}, {1, 3, 3}}, 2},
    {{1, 6, {1, 8, 16}, {1, 3, 3}}, 4},
    // Windows as large as the grid; runs of all rows of the window, of some and of one.
    {{1, 8, {1, 5, 5}, {1, 5, 5}}},
    {{1, 8, {1, 3, 25}, {1, 3, 25}}},
    {{1, 8, {1, 19, 24}, {1, 15, 15}}},
    {{1, 8, {1, 9, 64}, {1, 5, 61}}},
    // 1-D and 3-D; dims of one pixel.
    {{1, 8, {1, 1, 140}, {1, 1, 15}}},
    {{1, 8, {1, 1, 300}, {1, 1, 141}}},
    {{1, 8, {1, 70, 1}, {1, 41, 1}}},
    {{1, 8, {4, 9, 16}, {3, 3, 3}}},
    {{2, 8, {3, 2, 10}, {3, 1, 9}}},
    {{1, 8, {3, 1, 136}, {3, 1, 5}}},
    {{1, 8, {5, 6, 40}, {5, 5, 5}}, 0, 228},
    // More channels.
    {{1, 64, {1, 8, 16}, {1, 3, 5}}},
    {{1, 33, {1, 9, 24}, {1, 3, 17}}},
    {{1, 128, {1, 8, 16}, {1, 3, 3}}},
    {{1, 130, {1, 8, 18}, {1, 3, 3}}},
    {{2, 70, {1, 5, 17}, {1, 3, 3}}},
    // Even and one-sided windows.
    {{1, 8, {1, 9, 24}, {1, 4, 6}, false, {0, 1, 4}}},
    {{1, 8, {1, 17, 16}, {1, 3, 9}, false, {0, 2, 8}}},
    {{1, 8, {1, 1, 140}, {1, 1, 20}, false, {0, 0, 19}}},
    {{1, 8, {2, 1, 136}, {2, 1, 18}, false, {0, 0, 0}}},
    {{1, 3, {4, 5, 40}, {2, 4, 8}, false, {1, 3, 0}}},
    // Truncated dims: each of them, and windows larger than the grid.
    {{1, 8, {1, 11, 24}, {1, 5, 7}, false, {0, 2, 3}, {1, 1, 1}, {C, T, C}}},
    {{1, 8, {1, 18, 20}, {1, 4, 6}, false, {0, 0, 5}, {1, 1, 1}, {C, T, T}}},
    {{1, 8, {1, 1, 150}, {1, 1, 40}, false, {0, 0, 39}, {1, 1, 1}, {C, C, T}}},
    {{1, 8, {1, 1, 50}, {1, 1, 90}, false, {0, 0, 60}, {1, 1, 1}, {C, C, T}}},
    {{1, 8, {4, 6, 9}, {3, 3, 4}, false, {1, 0, 2}, {1, 1, 1}, {T, C, T}}},
    {{1, 8, {1, 3, 17}, {1, 15, 3}, false, {0, 9, 1}, {1, 1, 1}, {C, T, T}}},
    {{1, 8, {1, 9, 33}, {1, 4, 6}, true, {0, 2, 1}, {1, 1, 1}, {C, C, T}}},
    {{1, 8, {3, 6, 40}, {3, 3, 4}, true, {1, 1, 2}, {1, 1, 1}, {T, T, T}}},
    {{2, 4, {1, 7, 13}, {1, 3, 3}, false, {0, 1, 1}, {1, 1, 1}, {C, T, T}}},
    // Keys with a halo.
    {{1, 8, {1, 10, 16}, {1, 3, 9}, false, {0, 0, 0}, {1, 1, 1}, {C, V, V}}},
    {{1, 8, {2, 7, 13}, {3, 4, 3}, false, {0, 0, 0}, {1, 1, 1}, {V, T, V}}},
    {{1, 8, {1, 1, 70}, {1, 1, 21}, true, {0, 0, 0}, {1, 1, 1}, {C, C, V}}},
    {{2, 8, {1, 8, 16}, {1, 1, 3}, false, {0, 0, 0}, {1, 1, 1}, {C, C, V}}},
    {{1, 5, {2, 7, 14}, {2, 3, 3}, false, {0, 0, 0}, {1, 1, 1}, {V, V, V}}},
    // Values that are not finite, of the features and of A.
    {{1, 9, {1, 24, 48}, {1, 3, 5}, true}},
    {{1, 9, {1, 24, 47}, {1, 5, 5}, true}, 0, 228},
    {{2, 5, {1, 1, 200}, {1, 1, 9}, true}},
    {{1, 5, {3, 8, 24}, {3, 3, 3}, true}, 0, 228, true},
    {{1, 9, {1, 16, 32}, {1, 3, 5}}, 0, 228, true},
    {{1, 9, {1, 9, 33}, {1, 4, 6}, false, {0, 2, 1}, {1, 1, 1}, {C, T, T}}, 0, 228, true},
    // Two steps in shared memory instead of three, and fewer warps.
    {{1, 32, {1, 16, 256}, {1, 3, 63}}, 0, 100},
};

}  // namespace

void check_maps_mma() {
  for (const MapsCase& one : kCases) {
    // Mutants are compiled for few channels.
    if (!only_float32 || one.c.channels <= 32) check_mma(one);
  }
}

void check_maps_mma_random(Case c) {
  for (const int64_t dilation : c.dilation) {
    if (dilation > 1) return;
  }
  const auto below = [](int64_t n) { return static_cast<int>(randomness() % n); };
  if (below(4) == 0) c.channels = 1 + below(130);
  check_mma({c, below(3) * below(2), below(2) ? 228 : 100, below(4) == 0});
}

// More groups than a launch can have, with blocks of several warps.
void check_maps_mma_groups() {
  using T = c10::Half;
  const int64_t step = circulant::kMaxGridGroups, groups = step + 3;
  const Case c{groups, 1, {1, 8, 1}, {1, 3, 1}};
  const Problem p = c.problem();
  const MapsReference reference(c);
  const Array<T> x(rounded<T>(reference.x)), y(rounded<T>(reference.y)), z(rounded<T>(reference.z)),
      values(rounded<T>(reference.values));
  const auto either = [&](const std::string& what, const auto& op,
                          const std::vector<double>& expected) {
    const Only only(3, 0);
    const int64_t size = static_cast<int64_t>(expected.size()) / groups;
    Array<T> result(groups * size);
    try {
      op(result.at);
    } catch (const std::exception& error) {
      return report(c, "mma " + what, error.what());
    }
    for (const int64_t first : {int64_t(0), step}) {
      compare_exactly(c, "mma " + what + " of many groups", result.read(first * size, 3 * size),
                      [&](size_t i) { return expected[first * size + i]; });
    }
  };
  for (int plans = 0; plans < 6; ++plans) {
    either("similarity", [&](T* out) { similarity(x.at, y.at, out, p, false); }, reference.dot);
    either("apply", [&](T* out) { apply(values.at, y.at, out, p, false); }, reference.applied);
    either(
        "apply_transposed", [&](T* out) { apply(values.at, z.at, out, p, true); },
        reference.applied_transposed);
  }
}

// More than 2^32 entries. Only those in the row and the column of the last pixel of the last group
// are not zero, and only its results are compared.
void check_maps_mma_offsets() {
  using T = c10::Half;
  const Case c{2, 1, {1, 512, 512}, {1, 65, 129}};
  const Problem p = c.problem();
  const int64_t N = c.pixels(), K = c.offsets(), last = 2 * N - 1;
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  if (free / sizeof(T) / 5 < static_cast<size_t>(N * K)) {
    std::printf("not checked, too little memory: maps on tensor cores at offsets above 2^32\n");
    return;
  }
  Array<T> x(2 * N), values(2 * N * K), result(2 * N * K);
  for (Array<T>* array : {&x, &values, &result}) {
    check_cuda(cudaMemset(array->at, 0, array->bytes()));
  }
  const std::vector<int64_t> columns = columns_of(c, N - 1);
  std::vector<double> dot(K);
  double applied = 0, applied_transposed = 0;
  x.write(last, 3);
  for (int64_t s = 0; s < K; s += 50) {
    const int64_t j = columns[s];
    if (j == N - 1) continue;
    const double pixel = static_cast<double>(s % 9 - 4), other = static_cast<double>(s % 7 - 3);
    x.write(N + j, static_cast<T>(static_cast<float>(pixel)));
    values.write(last * K + s, static_cast<T>(static_cast<float>(other)));
    values.write((N + j) * K + slot_in(columns_of(c, j), N - 1),
                 static_cast<T>(static_cast<float>(other + 1)));
    dot[s] = 3 * pixel;
    applied += other * pixel;
    applied_transposed += (other + 1) * pixel;
  }
  dot[slot_in(columns, N - 1)] = 9;
  const auto of_last = [&](const std::string& what, const auto& op, int64_t from,
                           const std::vector<double>& expected) {
    const Only only(0, 1);
    try {
      op();
      compare_exactly(c, "mma " + what + " at an offset above 2^32",
                      result.read(from, static_cast<int64_t>(expected.size())),
                      [&](size_t i) { return expected[i]; });
    } catch (const std::exception& error) {
      report(c, "mma " + what + " at an offset above 2^32", error.what());
    }
  };
  of_last("similarity", [&] { similarity(x.at, x.at, result.at, p, false); }, last * K, dot);
  of_last("apply", [&] { apply(values.at, x.at, result.at, p, false); }, last, {applied});
  of_last("apply_transposed", [&] { apply(values.at, x.at, result.at, p, true); }, last,
          {applied_transposed});
}

// Which kernels run.
void check_maps_mma_plan() {
#ifdef CUDA_ON_HOST
  const auto expect = [](const Case& c, MapOp op, bool is_on_tensor_cores) {
    ++comparisons;
    if (circulant::uses_map_mma(c.problem(), op) == is_on_tensor_cores) return;
    report(c, "maps mma plan",
           "op " + std::to_string(op) + (is_on_tensor_cores ? " not" : "") + " on tensor cores");
  };
  const Case readme{2, 64, {1, 128, 96}, {1, 15, 15}}, small{1, 3, {1, 64, 64}, {1, 3, 3}};
  const Case five{8, 64, {1, 256, 256}, {1, 5, 5}}, nine{8, 64, {1, 256, 256}, {1, 9, 9}};
  Case truncated = readme, even = readme, dilated = readme, wide = readme, half = nine, few = nine;
  truncated.boundary[1] = kTruncated;
  even.window[2] = 16;
  dilated.dilation[2] = 2;
  wide.channels = 129;
  half.channels = 32;
  few.channels = 16;
  for (const MapOp op :
       {circulant::kMapSimilarity, circulant::kMapApply, circulant::kMapTransposed}) {
    for (const int shared_memory : {228, 164, 100}) {
      choose_device(108, shared_memory);
      for (const Case& c : {readme, truncated, even, nine, half}) expect(c, op, true);
      for (const Case& c : {small, dilated, five, few}) expect(c, op, false);
      expect(wide, op, op != circulant::kMapSimilarity);
    }
    choose_device(72, 64);
    expect(readme, op, false);
  }
#endif
}

}  // namespace check
