#include <torch/csrc/stable/library.h>

#include <vector>

#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

Tensor multiply(const Tensor& values_, const Tensor& x_, const std::vector<int64_t>& window,
                const char* op, Engine<Product> Engines::* engine) {
  const Geometry geometry = checked_product(values_, x_, window, op);
  const Dtype dtype = checked_dtype(x_, op);
  const int64_t groups = x_.size(0), channels = x_.size(1);
  const Tensor values = contiguous_of(values_), x = contiguous_of(x_);
  const Tensor y = torch::stable::new_empty(x, x.sizes());
  if (groups == 0 || channels == 0) return y;
  const Geometry g = simplified(geometry);
  run_chunks(engines().*engine,
             Product{g, dtype, channels, values.const_data_ptr(), x.const_data_ptr(),
                     y.mutable_data_ptr()},
             independent_chunks(g, groups));
  return y;
}

Tensor apply(const Tensor& values, const Tensor& x, std::vector<int64_t> window) {
  return multiply(values, x, window, "apply", &Engines::apply);
}

Tensor apply_transposed(const Tensor& values, const Tensor& x, std::vector<int64_t> window) {
  return multiply(values, x, window, "apply_transposed", &Engines::apply_transposed);
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("apply", TORCH_BOX(&circulant::apply));
  m.impl("apply_transposed", TORCH_BOX(&circulant::apply_transposed));
}
