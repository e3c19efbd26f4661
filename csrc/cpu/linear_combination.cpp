// alpha a + beta b in one pass. Memory sets its time, whatever the instruction set: so the loop is
// compiled once, for every processor. Without fused multiply-adds its bits are those of the plain
// expression.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "tensors.h"

namespace circulant {
namespace {

template <class T>
void combine(const T* a, T alpha, const T* b, T beta, T* result, int64_t count) {
  for (int64_t i = 0; i < count; ++i) result[i] = alpha * a[i] + beta * b[i];
}

template <class T>
void combine(const Tensor& a, const Tensor& alpha, const Tensor& b, const Tensor& beta,
             const Tensor& result) {
  constexpr int64_t kGrain = 1 << 15;
  const int64_t width = a.size(1);
  const auto factor = [](const Tensor& factors, int64_t group) {
    return static_cast<const T*>(factors.const_data_ptr())[factors.numel() == 1 ? 0 : group];
  };
  torch::stable::parallel_for(0, a.numel(), kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t group = begin / width;
      const int64_t count = std::min(end, (group + 1) * width) - begin;
      combine(static_cast<const T*>(a.const_data_ptr()) + begin, factor(alpha, group),
              static_cast<const T*>(b.const_data_ptr()) + begin, factor(beta, group),
              static_cast<T*>(result.mutable_data_ptr()) + begin, count);
      begin += count;
    }
  });
}

Tensor linear_combination(const Tensor& a_, const Tensor& alpha_, const Tensor& b_,
                          const Tensor& beta_) {
  const char* op = "linear_combination";
  check_alike(a_, b_, op);
  check_same_dtype(a_, alpha_, op);
  check_same_dtype(a_, beta_, op);
  STD_TORCH_CHECK(a_.dim() == 2, op, ": expected (G, n), got ", a_.dim(), " dims");
  for (const Tensor* factor : {&alpha_, &beta_}) {
    STD_TORCH_CHECK(factor->numel() == 1 || factor->numel() == a_.size(0), op,
                    ": expected one factor or one per group, got ", factor->numel());
  }
  const Dtype dtype = checked_dtype(a_, op);
  STD_TORCH_CHECK(dtype == Dtype::kFloat32 || dtype == Dtype::kFloat64, op,
                  ": expected float32 or float64");
  const Tensor a = contiguous_of(a_), b = contiguous_of(b_);
  const Tensor alpha = contiguous_of(alpha_), beta = contiguous_of(beta_);
  const Tensor result = new_output(a, a.sizes());
  if (a.numel() == 0) return result;
  if (dtype == Dtype::kFloat32) {
    combine<float>(a, alpha, b, beta, result);
  } else {
    combine<double>(a, alpha, b, beta, result);
  }
  return result;
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("linear_combination", TORCH_BOX(&circulant::linear_combination));
}
