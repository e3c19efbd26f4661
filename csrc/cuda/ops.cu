// The ops of csrc/ops.cpp on CUDA tensors: checks, allocation, and the kernels on the current
// stream.
#include <tuple>
#include <vector>

#include <cuda_runtime.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include "../common/checks.h"
#include "../common/constants.h"
#include "../common/dtype.h"
#include "../common/geometry.h"
#include "kernels.h"
#include "launch.h"

namespace circulant {

void check_cuda(cudaError_t error) { STD_CUDA_CHECK(error); }

namespace {

using torch::stable::accelerator::DeviceGuard;

// torch's current stream on the device of `x`.
cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_same_device(const Tensor& a, const Tensor& b, const char* op) {
  STD_TORCH_CHECK(a.device() == b.device(), op, ": tensors are on different devices");
}

int checked_channels(int64_t channels, const char* op) {
  STD_TORCH_CHECK(channels <= kMaxChannels, op, ": on CUDA a group can have ", kMaxChannels,
                  " channels, got ", channels);
  return static_cast<int>(channels);
}

Problem checked_problem(int64_t groups, int64_t channels, const Geometry& geometry,
                        const char* op) {
  for (const int64_t pixels : {geometry.pixels(), geometry.key_pixels()}) {
    STD_TORCH_CHECK(pixels <= kMaxPixels, op, ": on CUDA a grid can have ", kMaxPixels,
                    " pixels, got ", pixels);
  }
  STD_TORCH_CHECK(geometry.offsets() <= kMaxOffsets, op, ": on CUDA a window can have ",
                  kMaxOffsets, " offsets, got ", geometry.offsets());
  return {groups, checked_channels(channels, op), Pattern(geometry)};
}

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

// Checks sizes against the limits of attention's kernels.
AttentionProblem checked_attention_problem(int64_t groups, int64_t channels, int64_t value_channels,
                                           const Geometry& geometry, bool distance, double scale,
                                           const char* op) {
  const Problem problem = checked_problem(groups, channels, geometry, op);
  STD_TORCH_CHECK(problem.groups <= kMaxAttentionGroups, op, ": on CUDA there can be ",
                  kMaxAttentionGroups, " groups, got ", problem.groups);
  return {problem.groups,
          problem.pattern,
          {problem.channels, checked_channels(value_channels, op), distance, scale,
           (distance ? -0.5 : 1.0) * scale * kLog2E}};
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

// Checks the arguments that attention and its gradients have in common.
AttentionProblem checked_fused(const Tensor& q, const Tensor& k, const Tensor& v,
                               const std::vector<int64_t>& window, int64_t kind, double scale,
                               const char* op) {
  const bool distance = checked_kind(kind, op) == kDistance;
  check_same_device(q, k, op);
  check_same_device(q, v, op);
  const Geometry geometry = checked_attention(q, k, v, window, op);
  return checked_attention_problem(q.size(0), q.size(1), v.size(1), geometry, distance, scale, op);
}

// (G, N), in the type that sums over tensors like `x` are kept in.
Tensor new_rows(const Tensor& x, const AttentionProblem& problem) {
  return torch::stable::new_empty(x, {problem.groups, problem.pattern.pixels()}, sum_type(x));
}

// Memory for so many of these.
Tensor new_scratch(const Tensor& x, const AttentionProblem& problem, int rows) {
  return torch::stable::new_empty(x, {rows, problem.groups, problem.pattern.pixels()}, sum_type(x));
}

std::tuple<Tensor, Tensor> attention_op(const Tensor& q_, const Tensor& k_, const Tensor& v_,
                                        std::vector<int64_t> window, int64_t kind, double scale) {
  const char* op = "attention";
  const AttentionProblem problem = checked_fused(q_, k_, v_, window, kind, scale, op);
  const DeviceGuard guard(q_.get_device_index());
  const Tensor q = torch::stable::contiguous(q_), k = torch::stable::contiguous(k_),
               v = torch::stable::contiguous(v_);
  std::vector<int64_t> sizes(q.sizes().begin(), q.sizes().end());
  sizes[1] = v.size(1);
  Tensor y = torch::stable::new_empty(v, sizes), lse = new_rows(q, problem);
  if (lse.numel() == 0) return {y, lse};
  visit_dtype(q.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = accumulate_t<T>;
    Tensor scratch = new_scratch(q, problem, attention_scratch<T>(problem));
    attention(q.const_data_ptr<T>(), k.const_data_ptr<T>(), v.const_data_ptr<T>(),
              y.mutable_data_ptr<T>(), lse.mutable_data_ptr<A>(), scratch.mutable_data_ptr<A>(),
              problem, current_stream(q));
  });
  return {y, lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward_op(const Tensor& dy_, const Tensor& q_,
                                                         const Tensor& k_, const Tensor& v_,
                                                         const Tensor& y_, const Tensor& lse_,
                                                         std::vector<int64_t> window, int64_t kind,
                                                         double scale) {
  const char* op = "attention_backward";
  const AttentionProblem problem = checked_fused(q_, k_, v_, window, kind, scale, op);
  for (const Tensor* other : {&dy_, &y_, &lse_}) check_same_device(*other, q_, op);
  check_attended(dy_, y_, lse_, q_, v_, problem.pattern.pixels(), op);
  const DeviceGuard guard(q_.get_device_index());
  const Tensor dy = torch::stable::contiguous(dy_), q = torch::stable::contiguous(q_),
               k = torch::stable::contiguous(k_), v = torch::stable::contiguous(v_),
               y = torch::stable::contiguous(y_), lse = torch::stable::contiguous(lse_);
  Tensor dq = torch::stable::empty_like(q), dk = torch::stable::empty_like(k),
         dv = torch::stable::empty_like(v);
  if (lse.numel() == 0) return {dq, dk, dv};
  visit_dtype(q.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = accumulate_t<T>;
    Tensor scratch = new_scratch(q, problem, 1 + attention_scratch<T>(problem));
    attention_backward(dy.const_data_ptr<T>(), q.const_data_ptr<T>(), k.const_data_ptr<T>(),
                       v.const_data_ptr<T>(), y.const_data_ptr<T>(), lse.const_data_ptr<A>(),
                       scratch.mutable_data_ptr<A>(), dq.mutable_data_ptr<T>(),
                       dk.mutable_data_ptr<T>(), dv.mutable_data_ptr<T>(), problem,
                       current_stream(q));
  });
  return {dq, dk, dv};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CUDA, m) {
  m.impl("similarity", TORCH_BOX(&circulant::similarity_op));
  m.impl("adjacency", TORCH_BOX(&circulant::adjacency_op));
  m.impl("apply", TORCH_BOX(&circulant::apply_op<false>));
  m.impl("apply_transposed", TORCH_BOX(&circulant::apply_op<true>));
  m.impl("transpose", TORCH_BOX(&circulant::transpose_op));
  m.impl("attention", TORCH_BOX(&circulant::attention_op));
  m.impl("attention_backward", TORCH_BOX(&circulant::attention_backward_op));
}
