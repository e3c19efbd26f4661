// The ops of csrc/ops.cpp on CUDA tensors: checks, allocation, and the kernels on the current
// stream. Fused attention is in attention_ops.cu.
#include <vector>

#include <torch/csrc/stable/library.h>

#include "kernels.h"
#include "launch.h"
#include "tensors.h"

namespace circulant {

void check_cuda(cudaError_t error) { STD_CUDA_CHECK(error); }

namespace {

Tensor similarity_op(const Tensor& x_, const Tensor& y_, std::vector<int64_t> window,
                     int64_t kind_) {
  const char* op = "similarity";
  const Kind kind = checked_kind(kind_, op);
  check_same_device(x_, y_, op);
  const Geometry geometry = checked_similarity(x_, y_, window, op);
  const Problem problem = checked_problem(x_.size(0), x_.size(1), geometry, op);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor x = torch::stable::contiguous(x_), y = torch::stable::contiguous(y_);
  Tensor values =
      torch::stable::new_empty(x, {problem.groups, geometry.pixels(), geometry.offsets()});
  if (values.numel() == 0) return values;
  visit_dtype(x.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    similarity(x.const_data_ptr<T>(), y.const_data_ptr<T>(), values.mutable_data_ptr<T>(), problem,
               kind == kDistance, current_stream(x));
  });
  return values;
}

template <bool transposed>
Tensor apply_op(const Tensor& values_, const Tensor& x_, std::vector<int64_t> window) {
  const char* op = transposed ? "apply_transposed" : "apply";
  check_same_device(values_, x_, op);
  const Geometry geometry = checked_product(values_, x_, window, transposed, op);
  const Problem problem = checked_problem(x_.size(0), x_.size(1), geometry, op);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor values = torch::stable::contiguous(values_), x = torch::stable::contiguous(x_);
  Tensor y = torch::stable::new_empty(x, image_sizes(x, geometry, transposed));
  if (y.numel() == 0) return y;
  visit_dtype(x.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    apply(values.const_data_ptr<T>(), x.const_data_ptr<T>(), y.mutable_data_ptr<T>(), problem,
          transposed, current_stream(x));
  });
  return y;
}

// Transposes entries of any type of the size of `Bits`.
template <class Bits>
void transpose_as(const Tensor& values, Tensor& result, const Problem& problem) {
  transpose(static_cast<const Bits*>(values.const_data_ptr()),
            static_cast<Bits*>(result.mutable_data_ptr()), problem, current_stream(values));
}

Tensor transpose_op(const Tensor& values_, std::vector<int64_t> spatial_size,
                    std::vector<int64_t> window) {
  const char* op = "transpose";
  const Geometry geometry = checked_transpose(values_, spatial_size, window, op);
  const Problem problem = checked_problem(values_.size(0), 0, geometry, op);
  const DeviceGuard guard(values_.get_device_index());
  const Tensor values = torch::stable::contiguous(values_);
  Tensor result = torch::stable::empty_like(values);
  if (result.numel() == 0) return result;
  visit_dtype(values.scalar_type(), op, [&](auto tag) {
    switch (sizeof(typename decltype(tag)::type)) {
      case 2:
        return transpose_as<uint16_t>(values, result, problem);
      case 4:
        return transpose_as<uint32_t>(values, result, problem);
      default:
        return transpose_as<uint64_t>(values, result, problem);
    }
  });
  return result;
}

Tensor adjacency_op(const Tensor& x_, const Tensor& y_, std::vector<int64_t> window, int64_t kind_,
                    double scale) {
  const char* op = "adjacency";
  const Kind kind = checked_kind(kind_, op);
  check_same_device(x_, y_, op);
  const Geometry geometry = checked_similarity(x_, y_, window, op);
  const AttentionProblem problem =
      checked_attention_problem(x_.size(0), x_.size(1), 1, geometry, kind == kDistance, scale, op);
  const DeviceGuard guard(x_.get_device_index());
  if (x_.size(1) == 0) {
    // Without channels all scores are zero, as with one of zeros.
    const auto zeros = [&](bool of_keys) {
      std::vector<int64_t> sizes = image_sizes(x_, geometry, of_keys);
      sizes[1] = 1;
      return torch::stable::fill_(torch::stable::new_empty(x_, sizes), 0.0);
    };
    return adjacency_op(zeros(false), zeros(true), window, kind_, scale);
  }
  const Tensor x = torch::stable::contiguous(x_), y = torch::stable::contiguous(y_);
  Tensor values =
      torch::stable::new_empty(x, {problem.groups, geometry.pixels(), geometry.offsets()});
  if (values.numel() == 0) return values;
  visit_dtype(x.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    adjacency(x.const_data_ptr<T>(), y.const_data_ptr<T>(), values.mutable_data_ptr<T>(), problem,
              current_stream(x));
  });
  return values;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CUDA, m) {
  m.impl("similarity", TORCH_BOX(&circulant::similarity_op));
  m.impl("adjacency", TORCH_BOX(&circulant::adjacency_op));
  m.impl("apply", TORCH_BOX(&circulant::apply_op<false>));
  m.impl("apply_transposed", TORCH_BOX(&circulant::apply_op<true>));
  m.impl("transpose", TORCH_BOX(&circulant::transpose_op));
}
