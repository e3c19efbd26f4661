#include <torch/csrc/stable/library.h>

#include <vector>

#include "items.h"
#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

Tensor similarity(const Tensor& x_, const Tensor& y_, std::vector<int64_t> window, int64_t kind_) {
  const char* op = "similarity";
  const Kind kind = checked_kind(kind_, op);
  const Geometry geometry = checked_similarity(x_, y_, window, op);
  const Dtype dtype = checked_dtype(x_, op);
  const int64_t groups = x_.size(0), channels = x_.size(1);
  const int64_t sizes[] = {groups, geometry.pixels(), geometry.offsets()};
  if (groups == 0 || channels == 0) return torch::stable::new_zeros(x_, sizes);
  const Tensor x = contiguous_of(x_), y = contiguous_of(y_);
  const Tensor values = new_output(x, sizes);
  const Geometry g = simplified(geometry);
  run_items(kernels().similarity,
            SimilarityParams{g, dtype, channels, kind == kDistance, x.const_data_ptr(),
                             y.const_data_ptr(), values.mutable_data_ptr()},
            independent_items(g, groups, torch::stable::get_num_threads()));
  return values;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("similarity", TORCH_BOX(&circulant::similarity));
}
