// What the ops share between checking arguments and running an engine.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "../common/checks.h"
#include "../common/dtype.h"
#include "dispatch.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace circulant {

inline Dtype dtype_of(TypeTag<c10::Half>) { return Dtype::kFloat16; }
inline Dtype dtype_of(TypeTag<c10::BFloat16>) { return Dtype::kBFloat16; }
inline Dtype dtype_of(TypeTag<float>) { return Dtype::kFloat32; }
inline Dtype dtype_of(TypeTag<double>) { return Dtype::kFloat64; }

inline Dtype checked_dtype(const Tensor& x, const char* op) {
  Dtype dtype{};
  visit_dtype(x.scalar_type(), op, [&](auto tag) { dtype = dtype_of(tag); });
  return dtype;
}

inline Tensor contiguous_of(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// An undefined tensor like `x` for values in CSR order. Large ones are new memory of the system, of
// which it zeroes a page whenever one is first touched: with large pages, that is done less often.
inline Tensor new_values(const Tensor& x, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  Tensor values = torch::stable::new_empty(x, sizes);
#if defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t page = std::uintptr_t{1} << 21;
  const auto begin = reinterpret_cast<std::uintptr_t>(values.mutable_data_ptr());
  const std::uintptr_t first = (begin + page - 1) / page * page;
  const std::uintptr_t last = (begin + values.numel() * values.element_size()) / page * page;
  // A wish: nothing depends on whether it is granted.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return values;
}

// The same pattern in fewer and longer dims: dims of one pixel go, and neighbouring dims without a
// window are one. Rows and columns keep their numbers.
inline Geometry simplified(const Geometry& g) {
  Geometry result{{1, 1, 1}, {1, 1, 1}};
  int to = kSpatialDims;
  for (int d = kSpatialDims - 1; d >= 0; --d) {
    if (g.size[d] == 1) continue;
    const bool merge = to < kSpatialDims && g.window[d] == 1 && result.window[to] == 1;
    if (!merge) --to;
    result.size[to] *= g.size[d];
    result.window[to] *= g.window[d];
  }
  return result;
}

// What attention and its backward are asked about.
struct FusedShape {
  Geometry geometry;
  int64_t groups, channels, value_channels;
  Dtype dtype;
};

inline FusedShape checked_fused(const Tensor& q, const Tensor& k, const Tensor& v,
                                const std::vector<int64_t>& window, const char* op) {
  const Geometry geometry = checked_attention(q, k, v, window, op);
  return {geometry, q.size(0), q.size(1), v.size(1), checked_dtype(q, op)};
}

// A tensor like `x`, and what an engine that adds to it must know.
class Sums {
 public:
  // Of zeros, or else undefined until the first sum of a row is written.
  Sums(const Tensor& x, const Geometry& g, bool zero)
      : sums_(zero ? torch::stable::new_zeros(x, x.sizes(), sum_type(x))
                   : torch::stable::new_empty(x, x.sizes(), sum_type(x))),
        type_(x.scalar_type()),
        touched_(x.size(0) * g.size[0] * g.size[1], zero) {}

  void* data() const { return sums_.mutable_data_ptr(); }
  // A byte for every row of every group's grid: whether the row holds sums already.
  uint8_t* touched() const { return touched_.data(); }
  // The sums in the dtype of `x`.
  Tensor rounded() const { return torch::stable::to(sums_, type_); }

 private:
  Tensor sums_;
  torch::headeronly::ScalarType type_;
  mutable std::vector<uint8_t> touched_;
};

}  // namespace circulant
