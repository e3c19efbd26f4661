#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "biases.h"
#include "pairs.h"
#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

// result[r] = sum_o sum_i sums[(o, r, i)], rows of `width` elements, in this order of additions:
// the same for any number of threads.
Tensor sum_rows(const Tensor& sums, int64_t outer, int64_t rows, int64_t inner, int64_t width) {
  const int64_t sizes[] = {rows, width};
  const Tensor result = new_output(sums, sizes);
  visit_dtype(sums.scalar_type(), "biased_attention_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = static_cast<const T*>(sums.const_data_ptr());
    T* to = static_cast<T*>(result.mutable_data_ptr());
    constexpr int64_t kGrain = 4096;
    torch::stable::parallel_for(0, width, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = 0; r < rows; ++r) {
        T* row = to + r * width;
        for (int64_t n = begin; n < end; ++n) row[n] = T(0);
        for (int64_t o = 0; o < outer; ++o) {
          for (int64_t i = 0; i < inner; ++i) {
            const T* x = from + ((o * rows + r) * inner + i) * width;
            for (int64_t n = begin; n < end; ++n) row[n] = row[n] + x[n];
          }
        }
      }
    });
  });
  return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> biased_attention_backward(
    const Tensor& dy_, const Tensor& q_, const Tensor& k_, const Tensor& v_,
    std::optional<Tensor> bias, std::optional<Tensor> key_bias, const Tensor& y_,
    const Tensor& lse_, std::optional<Tensor> dlse_, std::vector<int64_t> window, int64_t kind_,
    double scale) {
  const char* op = "biased_attention_backward";
  const Kind kind = checked_kind(kind_, op);
  const AttentionShape shape = checked_shape(q_, k_, v_, window, op);
  check_attended(dy_, y_, lse_, q_, v_, shape.geometry.pixels(), op);
  if (dlse_) check_alike(*dlse_, lse_, op);
  const BiasTensors biases(bias, key_bias, q_, shape.geometry, op);
  const Tensor dy = contiguous_of(dy_), q = contiguous_of(q_), k = contiguous_of(k_);
  const Tensor v = contiguous_of(v_), y = contiguous_of(y_), lse = contiguous_of(lse_);
  const Tensor dlse = dlse_ ? contiguous_of(*dlse_) : lse;
  const Geometry g = simplified(shape.geometry);
  const PairCut cut = pair_cut(g, shape.groups, shape.channels + shape.value_channels);
  const PairPhases pairs = pair_phases(g, shape.groups, cut);
  const Tensor dq = new_sums(q, q.sizes(), false), dk = new_sums(k, k.sizes(), pairs.zeros),
               dv = new_sums(v, v.sizes(), pairs.zeros);
  const int64_t blocks = blocks_of_group(g, cut);
  const int64_t keys = g.key_pixels(), offsets = g.offsets();
  const std::vector<int64_t> none{0}, of_offsets{shape.groups * blocks, offsets},
      of_keys{shape.groups, keys};
  const Tensor offset_sums = new_sums(q, biases.offsets ? of_offsets : none, true),
               key_sums = new_sums(q, biases.keys ? of_keys : none, pairs.zeros);
  run_phases(kernels().attention_backward,
             AttentionBackwardParams{
                 g, shape.dtype, shape.channels, shape.value_channels, kind == kDistance, scale,
                 dy.const_data_ptr(), q.const_data_ptr(), k.const_data_ptr(), v.const_data_ptr(),
                 y.const_data_ptr(), lse.const_data_ptr(), dq.mutable_data_ptr(),
                 dk.mutable_data_ptr(), dv.mutable_data_ptr(), biases.params(shape.groups),
                 dlse_ ? dlse.const_data_ptr() : nullptr,
                 biases.offsets ? offset_sums.mutable_data_ptr() : nullptr,
                 biases.keys ? key_sums.mutable_data_ptr() : nullptr},
             pairs.phases);
  const auto dtype = q.scalar_type();
  Tensor dbias = offset_sums, dkey_bias = key_sums;
  if (biases.offsets) {
    const int64_t heads = biases.offsets->size(0);
    dbias = sum_rows(offset_sums, shape.groups / heads, heads, blocks, offsets);
  }
  if (biases.keys && biases.keys->size(0) != shape.groups) {
    const int64_t rows = biases.keys->size(0);
    dkey_bias = sum_rows(key_sums, 1, rows, shape.groups / rows, keys);
  }
  return {torch::stable::to(dq, dtype), torch::stable::to(dk, dtype), torch::stable::to(dv, dtype),
          dbias, dkey_bias};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("biased_attention_backward", TORCH_BOX(&circulant::biased_attention_backward));
}
