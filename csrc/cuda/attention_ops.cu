// Fused attention and its gradients on CUDA tensors: checks, allocation, and the kernels on the
// current stream.
#include <optional>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "attention_sums.h"
#include "kernels.h"
#include "tensors.h"

namespace circulant {
namespace {

using MaybeTensor = std::optional<Tensor>;

// Checks the arguments that attention and its gradients have in common.
AttentionProblem checked_fused(const Tensor& q, const Tensor& k, const Tensor& v,
                               const MaybeTensor& bias, const MaybeTensor& key_bias,
                               const std::vector<int64_t>& window, int64_t kind, double scale,
                               const char* op) {
  const bool distance = checked_kind(kind, op) == kDistance;
  check_same_device(q, k, op);
  check_same_device(q, v, op);
  const Geometry geometry = checked_attention(q, k, v, window, op);
  const AttentionProblem problem =
      checked_attention_problem(q.size(0), q.size(1), v.size(1), geometry, distance, scale, op);
  for (const MaybeTensor* other : {&bias, &key_bias}) {
    if (*other) check_same_device(**other, q, op);
  }
  check_biases(bias, key_bias, q, geometry, op);
  return problem;
}

MaybeTensor contiguous_of(const MaybeTensor& x) {
  return x ? MaybeTensor(torch::stable::contiguous(*x)) : MaybeTensor();
}

MaybeTensor empty_like(const MaybeTensor& x) {
  return x ? MaybeTensor(torch::stable::empty_like(*x)) : MaybeTensor();
}

// Contiguous biases as kernels take them.
template <class A>
ScoreTerms<A> terms_of(const MaybeTensor& bias, const MaybeTensor& key_bias,
                       const AttentionProblem& problem) {
  ScoreTerms<A> terms;
  terms.offsets = static_cast<int>(problem.pattern.offsets());
  terms.keys = problem.pattern.key_pixels();
  if (bias) {
    terms.bias = bias->const_data_ptr<A>();
    terms.heads = static_cast<int>(bias->size(0));
  }
  if (key_bias) {
    terms.key_bias = key_bias->const_data_ptr<A>();
    terms.row_groups = static_cast<int>(problem.groups / key_bias->size(0));
  }
  return terms;
}

// In the type that sums over tensors like `x` are kept in.
Tensor new_sums(const Tensor& x, const std::vector<int64_t>& sizes) {
  return torch::stable::new_empty(x, sizes, sum_type(x));
}

// (G, N).
Tensor new_rows(const Tensor& x, const AttentionProblem& problem) {
  return new_sums(x, {problem.groups, problem.pattern.pixels()});
}

// Memory for so many of these.
Tensor new_scratch(const Tensor& x, const AttentionProblem& problem, int rows) {
  return new_sums(x, {rows, problem.groups, problem.pattern.pixels()});
}

std::tuple<Tensor, Tensor> attend(const char* op, const Tensor& q_, const Tensor& k_,
                                  const Tensor& v_, const MaybeTensor& bias_,
                                  const MaybeTensor& key_bias_, const std::vector<int64_t>& window,
                                  int64_t kind, double scale) {
  const AttentionProblem problem =
      checked_fused(q_, k_, v_, bias_, key_bias_, window, kind, scale, op);
  const DeviceGuard guard(q_.get_device_index());
  const Tensor q = torch::stable::contiguous(q_), k = torch::stable::contiguous(k_),
               v = torch::stable::contiguous(v_);
  const MaybeTensor bias = contiguous_of(bias_), key_bias = contiguous_of(key_bias_);
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
              terms_of<A>(bias, key_bias, problem), problem, current_stream(q));
  });
  return {y, lse};
}

std::tuple<Tensor, Tensor> attention_op(const Tensor& q, const Tensor& k, const Tensor& v,
                                        std::vector<int64_t> window, int64_t kind, double scale) {
  return attend("attention", q, k, v, {}, {}, window, kind, scale);
}

std::tuple<Tensor, Tensor> biased_attention_op(const Tensor& q, const Tensor& k, const Tensor& v,
                                               MaybeTensor bias, MaybeTensor key_bias,
                                               std::vector<int64_t> window, int64_t kind,
                                               double scale) {
  return attend("biased_attention", q, k, v, bias, key_bias, window, kind, scale);
}

struct Gradients {
  Tensor q, k, v;
  MaybeTensor bias, key_bias;
};

Gradients differentiate(const char* op, const Tensor& dy_, const Tensor& q_, const Tensor& k_,
                        const Tensor& v_, const MaybeTensor& bias_, const MaybeTensor& key_bias_,
                        const Tensor& y_, const Tensor& lse_, const MaybeTensor& dlse_,
                        const std::vector<int64_t>& window, int64_t kind, double scale) {
  const AttentionProblem problem =
      checked_fused(q_, k_, v_, bias_, key_bias_, window, kind, scale, op);
  for (const Tensor* other : {&dy_, &y_, &lse_}) check_same_device(*other, q_, op);
  check_attended(dy_, y_, lse_, q_, v_, problem.pattern.pixels(), op);
  if (dlse_) {
    check_same_device(*dlse_, q_, op);
    check_alike(*dlse_, lse_, op);
  }
  const DeviceGuard guard(q_.get_device_index());
  const Tensor dy = torch::stable::contiguous(dy_), q = torch::stable::contiguous(q_),
               k = torch::stable::contiguous(k_), v = torch::stable::contiguous(v_),
               y = torch::stable::contiguous(y_), lse = torch::stable::contiguous(lse_);
  const MaybeTensor bias = contiguous_of(bias_), key_bias = contiguous_of(key_bias_),
                    dlse = contiguous_of(dlse_);
  Tensor dq = torch::stable::empty_like(q), dk = torch::stable::empty_like(k),
         dv = torch::stable::empty_like(v);
  MaybeTensor dbias = empty_like(bias), dkey_bias = empty_like(key_bias);
  if (lse.numel() == 0) {
    // Sums over no group.
    for (MaybeTensor* sum : {&dbias, &dkey_bias}) {
      if (*sum) torch::stable::fill_(**sum, 0.0);
    }
    return {dq, dk, dv, dbias, dkey_bias};
  }
  visit_dtype(q.scalar_type(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = accumulate_t<T>;
    const cudaStream_t stream = current_stream(q);
    const ScoreTerms<A> terms = terms_of<A>(bias, key_bias, problem);
    const int64_t G = problem.groups;
    const int rows = 1 + (terms.any() || dlse);
    Tensor scratch = new_scratch(q, problem, rows + attention_scratch<T>(problem));
    // dkey_bias may have a row for each group.
    const bool sums_groups = terms.row_groups > 1;
    MaybeTensor offset_sums, key_sums = dkey_bias;
    ScoreTermSums<A> sums;
    if (bias) {
      sums.tiles = attention_tiles<T>(problem);
      offset_sums = new_sums(q, {G * sums.tiles, terms.offsets});
      sums.offsets = offset_sums->mutable_data_ptr<A>();
    }
    if (sums_groups) key_sums = new_sums(q, {G, terms.keys});
    if (key_bias) sums.keys = key_sums->mutable_data_ptr<A>();
    attention_backward(dy.const_data_ptr<T>(), q.const_data_ptr<T>(), k.const_data_ptr<T>(),
                       v.const_data_ptr<T>(), y.const_data_ptr<T>(), lse.const_data_ptr<A>(),
                       dlse ? dlse->const_data_ptr<A>() : nullptr, scratch.mutable_data_ptr<A>(),
                       dq.mutable_data_ptr<T>(), dk.mutable_data_ptr<T>(), dv.mutable_data_ptr<T>(),
                       terms, sums, problem, stream);
    if (bias) {
      sum_rows<A>(op, sums.offsets, dbias->mutable_data_ptr<A>(), terms.heads,
                  G / terms.heads * sums.tiles, terms.offsets, stream);
    }
    if (sums_groups) {
      sum_rows<A>(op, sums.keys, dkey_bias->mutable_data_ptr<A>(), G / terms.row_groups,
                  terms.row_groups, terms.keys, stream);
    }
  });
  return {dq, dk, dv, dbias, dkey_bias};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward_op(const Tensor& dy, const Tensor& q,
                                                         const Tensor& k, const Tensor& v,
                                                         const Tensor& y, const Tensor& lse,
                                                         std::vector<int64_t> window, int64_t kind,
                                                         double scale) {
  const Gradients found =
      differentiate("attention_backward", dy, q, k, v, {}, {}, y, lse, {}, window, kind, scale);
  return {found.q, found.k, found.v};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> biased_attention_backward_op(
    const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, MaybeTensor bias,
    MaybeTensor key_bias, const Tensor& y, const Tensor& lse, MaybeTensor dlse,
    std::vector<int64_t> window, int64_t kind, double scale) {
  const Gradients found = differentiate("biased_attention_backward", dy, q, k, v, bias, key_bias, y,
                                        lse, dlse, window, kind, scale);
  return {found.q, found.k, found.v, found.bias ? *found.bias : new_sums(q, {0}),
          found.key_bias ? *found.key_bias : new_sums(q, {0})};
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CUDA, m) {
  m.impl("attention", TORCH_BOX(&circulant::attention_op));
  m.impl("attention_backward", TORCH_BOX(&circulant::attention_backward_op));
  m.impl("biased_attention", TORCH_BOX(&circulant::biased_attention_op));
  m.impl("biased_attention_backward", TORCH_BOX(&circulant::biased_attention_backward_op));
}
