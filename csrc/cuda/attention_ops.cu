// Fused attention and its gradients on CUDA tensors: checks, allocation, and the kernels on the
// current stream.
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "kernels.h"
#include "tensors.h"

namespace circulant {
namespace {

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
  m.impl("attention", TORCH_BOX(&circulant::attention_op));
  m.impl("attention_backward", TORCH_BOX(&circulant::attention_backward_op));
}
