#include <torch/csrc/stable/library.h>

#include <vector>

#include "schedule.h"
#include "tensors.h"

namespace circulant {
namespace {

// Each item holds whole rows, so that any cut gives the same bits.
std::vector<WorkItem> row_items(int64_t rows, int64_t threads) {
  const int64_t count = std::min(rows, 4 * threads);
  std::vector<WorkItem> items;
  for (int64_t i = 0; i < count; ++i) {
    items.push_back({0, {0, 1}, part_of(rows, i, count), {0, 1}});
  }
  return items;
}

Tensor softmax_backward(const Tensor& grad_, const Tensor& weights_) {
  const char* op = "softmax_backward";
  check_alike(grad_, weights_, op);
  STD_TORCH_CHECK(weights_.dim() >= 1, op, ": expected (..., K), got no dims");
  const Dtype dtype = checked_dtype(weights_, op);
  const Tensor grad = contiguous_of(grad_), weights = contiguous_of(weights_);
  const Tensor result = new_output(weights, weights.sizes());
  if (weights.numel() == 0) return result;
  const int64_t width = weights.size(weights.dim() - 1);
  run_items(kernels().softmax_backward,
            SoftmaxBackwardParams{dtype, width, grad.const_data_ptr(), weights.const_data_ptr(),
                                  result.mutable_data_ptr()},
            row_items(weights.numel() / width, torch::stable::get_num_threads()));
  return result;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("softmax_backward", TORCH_BOX(&circulant::softmax_backward));
}
