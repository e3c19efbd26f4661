// The ops of csrc/ops.cpp on CUDA tensors: checks, outputs, and the kernels on the current stream.
#include <vector>

#include <cuda_runtime.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/dtype.h"
#include "../common/geometry.h"
#include "kernels.h"
#include "launch.h"

namespace circulant {

void check_cuda(cudaError_t error) { STD_CUDA_CHECK(error); }

namespace {

using torch::stable::accelerator::DeviceGuard;

// The stream that torch has chosen on the device of `x`.
cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_same_device(const Tensor& a, const Tensor& b, const char* op) {
  STD_TORCH_CHECK(a.device() == b.device(), op, ": tensors are on different devices");
}

Problem checked_problem(int64_t groups, int64_t channels, const Geometry& geometry,
                        const char* op) {
  STD_TORCH_CHECK(geometry.pixels() <= kMaxPixels, op, ": on CUDA a grid can have ", kMaxPixels,
                  " pixels, got ", geometry.pixels());
  return {groups, channels, Pattern(geometry)};
}

Tensor similarity_op(const Tensor& x_, const Tensor& y_, std::vector<int64_t> window,
                     int64_t kind_) {
  const char* op = "similarity";
  const Kind kind = checked_kind(kind_, op);
  check_same_device(x_, y_, op);
  check_same_dtype(x_, y_, op);
  check_same_shape(x_, y_, op);
  const Geometry geometry = checked_geometry(x_, window, op);
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
  check_same_dtype(values_, x_, op);
  const Geometry geometry = checked_geometry(x_, window, op);
  check_values(values_, x_.size(0), geometry, op);
  const Problem problem = checked_problem(x_.size(0), x_.size(1), geometry, op);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor values = torch::stable::contiguous(values_), x = torch::stable::contiguous(x_);
  Tensor y = torch::stable::empty_like(x);
  if (y.numel() == 0) return y;
  visit_dtype(x.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    apply(values.const_data_ptr<T>(), x.const_data_ptr<T>(), y.mutable_data_ptr<T>(), problem,
          transposed, current_stream(x));
  });
  return y;
}

// Entries are moved, not computed with: any number of the same size stands for them.
template <class Number>
void transpose_as(const Tensor& values, Tensor& result, const Problem& problem) {
  transpose(static_cast<const Number*>(values.const_data_ptr()),
            static_cast<Number*>(result.mutable_data_ptr()), problem, current_stream(values));
}

Tensor transpose_op(const Tensor& values_, std::vector<int64_t> spatial_size,
                    std::vector<int64_t> window) {
  const char* op = "transpose";
  const Geometry geometry =
      checked_geometry(spatial_size.data(), static_cast<int64_t>(spatial_size.size()), window, op);
  STD_TORCH_CHECK(values_.dim() == 3, op, ": values must be (G, N, K), got ", values_.dim(),
                  " dims");
  check_values(values_, values_.size(0), geometry, op);
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

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CUDA, m) {
  m.impl("similarity", TORCH_BOX(&circulant::similarity_op));
  m.impl("apply", TORCH_BOX(&circulant::apply_op<false>));
  m.impl("apply_transposed", TORCH_BOX(&circulant::apply_op<true>));
  m.impl("transpose", TORCH_BOX(&circulant::transpose_op));
}
