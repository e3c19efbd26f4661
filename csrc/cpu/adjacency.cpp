#include <torch/csrc/stable/library.h>

#include <vector>

#include "items.h"
#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

Tensor adjacency(const Tensor& x_, const Tensor& y_, std::vector<int64_t> window, int64_t kind_,
                 double scale) {
  const char* op = "adjacency";
  const Kind kind = checked_kind(kind_, op);
  const Geometry geometry = checked_similarity(x_, y_, window, op);
  const Dtype dtype = checked_dtype(x_, op);
  const int64_t groups = x_.size(0), channels = x_.size(1);
  const int64_t sizes[] = {groups, geometry.pixels(), geometry.offsets()};
  const Tensor x = contiguous_of(x_), y = contiguous_of(y_);
  const Tensor values = new_output(x, sizes);
  if (groups == 0) return values;
  const Geometry g = simplified(geometry);
  run_items(kernels().adjacency,
            AdjacencyParams{g, dtype, channels, kind == kDistance, scale, x.const_data_ptr(),
                            y.const_data_ptr(), values.mutable_data_ptr()},
            independent_items(g, groups, torch::stable::get_num_threads()));
  return values;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("adjacency", TORCH_BOX(&circulant::adjacency));
}
