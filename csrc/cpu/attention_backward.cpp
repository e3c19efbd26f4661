#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

// A gradient like `x` in the type of the sums, and which of its rows hold sums.
class Sums {
 public:
  // Filled with zeros, or else undefined until the first sum of a row is stored.
  Sums(const Tensor& x, const Geometry& g, bool zero)
      : sums_(zero ? torch::stable::new_zeros(x, x.sizes(), sum_type(x))
                   : torch::stable::new_empty(x, x.sizes(), sum_type(x))),
        type_(x.scalar_type()),
        initialized_(x.size(0) * g.size[0] * g.size[1], zero) {}

  void* data() { return sums_.mutable_data_ptr(); }
  // A byte per row of every group's grid: whether the row holds sums.
  uint8_t* initialized() { return initialized_.data(); }
  // The gradient in the dtype of `x`.
  Tensor rounded() const { return torch::stable::to(sums_, type_); }

 private:
  Tensor sums_;
  torch::headeronly::ScalarType type_;
  std::vector<uint8_t> initialized_;
};

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
  const Tensor dq = torch::stable::new_empty(q, q.sizes());
  const Geometry g = simplified(shape.geometry);
  const PhasedItems items = phased_items(g, shape.groups);
  Sums dk(k, g, items.parts_of_rows), dv(v, g, items.parts_of_rows);
  if (shape.groups > 0) {
    run_phases(kernels().attention_backward,
               AttentionBackwardParams{
                   g, shape.dtype, shape.channels, shape.value_channels, kind == kDistance, scale,
                   dy.const_data_ptr(), q.const_data_ptr(), k.const_data_ptr(), v.const_data_ptr(),
                   y.const_data_ptr(), lse.const_data_ptr(), dq.mutable_data_ptr(), dk.data(),
                   dv.data(), dk.initialized(), dv.initialized()},
               items);
  }
  return {dq, dk.rounded(), dv.rounded()};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("attention_backward", TORCH_BOX(&circulant::attention_backward));
}
