// From a tensor's dtype to a C++ type.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "accumulate.h"

namespace circulant {

template <class T>
struct TypeTag {
  using type = T;
};

// Calls `f(TypeTag<T>{})` with the C++ type of `dtype`. Complex tensors reach the ops as real ones
// of twice the channels, so there are four types.
template <class F>
void visit_dtype(torch::headeronly::ScalarType dtype, const char* op, F&& f) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Half:
      return f(TypeTag<c10::Half>{});
    case ScalarType::BFloat16:
      return f(TypeTag<c10::BFloat16>{});
    case ScalarType::Float:
      return f(TypeTag<float>{});
    case ScalarType::Double:
      return f(TypeTag<double>{});
    default:
      STD_TORCH_CHECK(false, op, ": dtype ", torch::headeronly::toString(dtype),
                      " is not one of float16, bfloat16, float32, float64");
  }
}

// The dtype of sums over tensors like `x`.
inline torch::headeronly::ScalarType sum_type(const torch::stable::Tensor& x) {
  using torch::headeronly::ScalarType;
  const ScalarType type = x.scalar_type();
  return type == ScalarType::Half || type == ScalarType::BFloat16 ? ScalarType::Float : type;
}

}  // namespace circulant
