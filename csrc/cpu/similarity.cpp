// values_ij of the similarity of x and y, every pixel i with every j of its window.
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/dtype.h"
#include "../common/geometry.h"
#include "rows.h"

namespace circulant {
namespace {

template <class T, Kind kind>
void similarity_rows(const T* x, const T* y, T* values, int64_t groups, int64_t channels,
                     const Geometry& g) {
  using Acc = accumulate_t<T>;
  const int64_t N = g.pixels(), K = g.offsets();
  for_each_row(groups, g, [=](int64_t group, int64_t i) {
    const T* xg = x + group * channels * N;
    const T* yg = y + group * channels * N;
    T* out = values + (group * N + i) * K;
    for_each_slot(g, i, [&](int64_t s, int64_t j) {
      Acc sum = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const Acc a = static_cast<Acc>(xg[c * N + i]), b = static_cast<Acc>(yg[c * N + j]);
        sum += kind == kDot ? a * b : (a - b) * (a - b);
      }
      out[s] = static_cast<T>(kind == kDot ? sum : Acc(-0.5) * sum);
    });
  });
}

Tensor similarity(const Tensor& x_, const Tensor& y_, std::vector<int64_t> window, int64_t kind_) {
  const char* op = "similarity";
  const Kind kind = checked_kind(kind_, op);
  check_same_dtype(x_, y_, op);
  check_same_shape(x_, y_, op);
  const Geometry g = checked_geometry(x_, window, op);
  const Tensor x = torch::stable::contiguous(x_), y = torch::stable::contiguous(y_);
  const int64_t groups = x.size(0), channels = x.size(1);
  Tensor values = torch::stable::new_empty(x, {groups, g.pixels(), g.offsets()});
  visit_dtype(x.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    auto* rows = kind == kDot ? similarity_rows<T, kDot> : similarity_rows<T, kDistance>;
    rows(x.const_data_ptr<T>(), y.const_data_ptr<T>(), values.mutable_data_ptr<T>(), groups, channels,
         g);
  });
  return values;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("similarity", TORCH_BOX(&circulant::similarity));
}
