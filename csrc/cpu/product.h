// y = A x and y = A^T x, which differ in the kernel only.
#pragma once

#include <vector>

#include "items.h"
#include "schedule.h"
#include "tensors.h"

namespace circulant {

inline Tensor product(const Tensor& values_, const Tensor& x_, const std::vector<int64_t>& window,
                      bool transposed, const char* op, const Kernel<ProductParams>& kernel) {
  const Geometry geometry = checked_product(values_, x_, window, transposed, op);
  const Dtype dtype = checked_dtype(x_, op);
  const int64_t groups = x_.size(0), channels = x_.size(1);
  const Tensor values = contiguous_of(values_), x = contiguous_of(x_);
  const Tensor y = new_output(x, image_sizes(x, geometry, transposed));
  if (groups == 0 || channels == 0) return y;
  const Geometry g = simplified(geometry);
  run_items(
      kernel,
      ProductParams{g, dtype, channels, values.const_data_ptr(), x.const_data_ptr(),
                    y.mutable_data_ptr()},
      independent_items(transposed ? g.transposed() : g, groups, torch::stable::get_num_threads()));
  return y;
}

}  // namespace circulant
