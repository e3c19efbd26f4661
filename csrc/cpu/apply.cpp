#include <torch/csrc/stable/library.h>

#include <vector>

#include "chunks.h"
#include "op.h"

namespace circulant {
namespace {

// What both products are asked about.
struct Product {
  Geometry geometry;
  int64_t groups, channels;
  Dtype dtype;
};

Product checked_product(const Tensor& values, const Tensor& x, const std::vector<int64_t>& window,
                        const char* op) {
  check_same_dtype(values, x, op);
  const Geometry geometry = checked_geometry(x, window, op);
  check_values(values, x.size(0), geometry, op);
  return {simplified(geometry), x.size(0), x.size(1), checked_dtype(x, op)};
}

Tensor apply(const Tensor& values_, const Tensor& x_, std::vector<int64_t> window) {
  const auto [g, groups, channels, dtype] = checked_product(values_, x_, window, "apply");
  const Tensor values = contiguous_of(values_), x = contiguous_of(x_);
  const Tensor y = torch::stable::new_empty(x, x.sizes());
  if (groups == 0 || channels == 0) return y;
  run_chunks(
      engines().apply,
      Apply{g, dtype, channels, values.const_data_ptr(), x.const_data_ptr(), y.mutable_data_ptr()},
      independent_chunks(g, groups));
  return y;
}

Tensor apply_transposed(const Tensor& values_, const Tensor& x_, std::vector<int64_t> window) {
  const auto [g, groups, channels, dtype] =
      checked_product(values_, x_, window, "apply_transposed");
  const Tensor values = contiguous_of(values_), x = contiguous_of(x_);
  if (groups == 0 || channels == 0) return torch::stable::new_empty(x, x.sizes());
  const PhasedChunks chunks = phased_chunks(g, groups);
  const Sums y(x, g, chunks.adds);
  run_phases(engines().apply_transposed,
             ApplyTransposed{g, dtype, channels, values.const_data_ptr(), x.const_data_ptr(),
                             y.data(), y.touched()},
             chunks);
  return y.rounded();
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("apply", TORCH_BOX(&circulant::apply));
  m.impl("apply_transposed", TORCH_BOX(&circulant::apply_transposed));
}
