#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "biases.h"
#include "items.h"
#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

std::tuple<Tensor, Tensor> biased_attention(const Tensor& q_, const Tensor& k_, const Tensor& v_,
                                            std::optional<Tensor> bias,
                                            std::optional<Tensor> key_bias,
                                            std::vector<int64_t> window, int64_t kind_,
                                            double scale) {
  const char* op = "biased_attention";
  const Kind kind = checked_kind(kind_, op);
  const AttentionShape shape = checked_shape(q_, k_, v_, window, op);
  const BiasTensors biases(bias, key_bias, q_, shape.geometry, op);
  const Tensor q = contiguous_of(q_), k = contiguous_of(k_), v = contiguous_of(v_);
  const int64_t rows[] = {shape.groups, shape.geometry.pixels()};
  const Tensor y = new_output(v, image_sizes(v, shape.geometry, false));
  const Tensor lse = new_output(q, rows, sum_type(q));
  if (shape.groups == 0) return {y, lse};
  const Geometry g = simplified(shape.geometry);
  run_items(
      kernels().attention,
      AttentionParams{g, shape.dtype, shape.channels, shape.value_channels, kind == kDistance,
                      scale, q.const_data_ptr(), k.const_data_ptr(), v.const_data_ptr(),
                      y.mutable_data_ptr(), lse.mutable_data_ptr(), biases.params(shape.groups)},
      independent_items(g, shape.groups, torch::stable::get_num_threads()));
  return {y, lse};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("biased_attention", TORCH_BOX(&circulant::biased_attention));
}
