// The values of the transposed matrix: entry (i, j) of the result is entry (j, i) of the input.
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/dtype.h"
#include "../common/geometry.h"
#include "rows.h"

namespace circulant {
namespace {

Tensor transpose(const Tensor& values_, std::vector<int64_t> spatial_size,
                 std::vector<int64_t> window) {
  const char* op = "transpose";
  const Geometry g = checked_geometry(spatial_size.data(), spatial_size.size(), window, op);
  STD_TORCH_CHECK(values_.dim() == 3, op, ": values must be (G, N, K), got ", values_.dim(), " dims");
  const int64_t groups = values_.size(0);
  check_values(values_, groups, g, op);
  const Tensor values = torch::stable::contiguous(values_);
  Tensor result = torch::stable::empty_like(values);
  visit_dtype(values.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* in = values.const_data_ptr<T>();
    T* out = result.mutable_data_ptr<T>();
    const int64_t N = g.pixels(), K = g.offsets();
    for_each_row(groups, g, [=](int64_t group, int64_t i) {
      for_each_entry(g, i, [&](int64_t s, int64_t j, int64_t t) {
        out[(group * N + i) * K + s] = in[(group * N + j) * K + t];
      });
    });
  });
  return result;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("transpose", TORCH_BOX(&circulant::transpose));
}
