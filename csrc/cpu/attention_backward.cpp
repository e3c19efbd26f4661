#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

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
  const FusedShape shape = checked_fused(q_, k_, v_, window, op);
  check_attended(dy_, y_, lse_, q_, v_, shape.geometry.pixels(), op);
  const Tensor dy = contiguous_of(dy_), q = contiguous_of(q_), k = contiguous_of(k_);
  const Tensor v = contiguous_of(v_), y = contiguous_of(y_), lse = contiguous_of(lse_);
  const Tensor dq = torch::stable::new_empty(q, q.sizes());
  const Geometry g = simplified(shape.geometry);
  const PhasedChunks chunks = phased_chunks(g, shape.groups);
  const Sums dk(k, g, chunks.adds), dv(v, g, chunks.adds);
  if (shape.groups > 0) {
    run_phases(
        engines().attention_backward,
        AttentionBackward{g, shape.dtype, shape.channels, shape.value_channels, kind == kDistance,
                          scale, dy.const_data_ptr(), q.const_data_ptr(), k.const_data_ptr(),
                          v.const_data_ptr(), y.const_data_ptr(), lse.const_data_ptr(),
                          dq.mutable_data_ptr(), dk.data(), dv.data(), dk.touched(), dv.touched()},
        chunks);
  }
  return {dq, dk.rounded(), dv.rounded()};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("attention_backward", TORCH_BOX(&circulant::attention_backward));
}
