// y_i = sum_j A_ij x_j and y_j = sum_i A_ij x_i. The window is odd, so the pattern is symmetric and the
// transposed product is a gather as well.
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/dtype.h"
#include "../common/geometry.h"
#include "rows.h"

namespace circulant {
namespace {

template <class T, bool transposed>
void apply_rows(const T* values, const T* x, T* y, int64_t groups, int64_t channels,
                const Geometry& g) {
  using Acc = accumulate_t<T>;
  const int64_t N = g.pixels(), K = g.offsets();
  for_each_row(groups, g, [=](int64_t group, int64_t i) {
    const T* vg = values + group * N * K;
    std::vector<Acc> sum(channels, Acc(0));
    for_each_entry(g, i, [&](int64_t s, int64_t j, int64_t t) {
      const Acc a = static_cast<Acc>(transposed ? vg[j * K + t] : vg[i * K + s]);
      for (int64_t c = 0; c < channels; ++c)
        sum[c] += a * static_cast<Acc>(x[(group * channels + c) * N + j]);
    });
    for (int64_t c = 0; c < channels; ++c) y[(group * channels + c) * N + i] = static_cast<T>(sum[c]);
  });
}

template <bool transposed>
Tensor apply(const Tensor& values_, const Tensor& x_, std::vector<int64_t> window) {
  const char* op = transposed ? "apply_transposed" : "apply";
  check_same_dtype(values_, x_, op);
  const Geometry g = checked_geometry(x_, window, op);
  check_values(values_, x_.size(0), g, op);
  const Tensor values = torch::stable::contiguous(values_), x = torch::stable::contiguous(x_);
  Tensor y = torch::stable::empty_like(x);
  visit_dtype(x.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    apply_rows<T, transposed>(values.const_data_ptr<T>(), x.const_data_ptr<T>(),
                              y.mutable_data_ptr<T>(), x.size(0), x.size(1), g);
  });
  return y;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("apply", TORCH_BOX(&circulant::apply<false>));
  m.impl("apply_transposed", TORCH_BOX(&circulant::apply<true>));
}
