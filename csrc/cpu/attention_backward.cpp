#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "pairs.h"
#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

std::tuple<Tensor, Tensor, Tensor> attention_backward(const Tensor& dy_, const Tensor& q_,
                                                      const Tensor& k_, const Tensor& v_,
                                                      const Tensor& y_, const Tensor& lse_,
                                                      std::vector<int64_t> window, int64_t kind_,
                                                      double scale) {
  const char* op = "attention_backward";
  const Kind kind = checked_kind(kind_, op);
  const AttentionShape shape = checked_shape(q_, k_, v_, window, op);
  check_attended(dy_, y_, lse_, q_, v_, shape.geometry.pixels(), op);
  const Tensor dy = contiguous_of(dy_), q = contiguous_of(q_), k = contiguous_of(k_);
  const Tensor v = contiguous_of(v_), y = contiguous_of(y_), lse = contiguous_of(lse_);
  const Geometry g = simplified(shape.geometry);
  const PairPhases pairs = pair_phases(
      g, shape.groups, pair_cut(g, shape.groups, shape.channels + shape.value_channels));
  const Tensor dq = new_sums(q, q.sizes(), false), dk = new_sums(k, k.sizes(), pairs.zeros),
               dv = new_sums(v, v.sizes(), pairs.zeros);
  run_phases(kernels().attention_backward,
             AttentionBackwardParams{
                 g, shape.dtype, shape.channels, shape.value_channels, kind == kDistance, scale,
                 dy.const_data_ptr(), q.const_data_ptr(), k.const_data_ptr(), v.const_data_ptr(),
                 y.const_data_ptr(), lse.const_data_ptr(), dq.mutable_data_ptr(),
                 dk.mutable_data_ptr(), dv.mutable_data_ptr()},
             pairs.phases);
  const auto dtype = q.scalar_type();
  return {torch::stable::to(dq, dtype), torch::stable::to(dk, dtype), torch::stable::to(dv, dtype)};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("attention_backward", TORCH_BOX(&circulant::attention_backward));
}
