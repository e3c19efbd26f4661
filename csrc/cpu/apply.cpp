#include <torch/csrc/stable/library.h>

#include <vector>

#include "product.h"

namespace circulant {
namespace {

Tensor apply(const Tensor& values, const Tensor& x, std::vector<int64_t> window) {
  return product(values, x, window, false, "apply", kernels().apply);
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("apply", TORCH_BOX(&circulant::apply));
}
