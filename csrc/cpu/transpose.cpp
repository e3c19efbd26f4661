#include <torch/csrc/stable/library.h>

#include <vector>

#include "items.h"
#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

Tensor transpose(const Tensor& values_, std::vector<int64_t> spatial_size,
                 std::vector<int64_t> window) {
  const char* op = "transpose";
  const Geometry geometry = checked_transpose(values_, spatial_size, window, op);
  const int64_t groups = values_.size(0);
  const Dtype dtype = checked_dtype(values_, op);
  const Tensor values = contiguous_of(values_);
  const Tensor result = new_output(values, values.sizes());
  if (groups == 0) return result;
  const Geometry g = simplified(geometry);
  run_items(kernels().transpose,
            TransposeParams{g, dtype, values.const_data_ptr(), result.mutable_data_ptr()},
            independent_items(g.transposed(), groups, torch::stable::get_num_threads()));
  return result;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("transpose", TORCH_BOX(&circulant::transpose));
}
