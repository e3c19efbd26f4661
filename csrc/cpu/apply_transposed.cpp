#include <torch/csrc/stable/library.h>

#include <vector>

#include "product.h"

namespace circulant {
namespace {

Tensor apply_transposed(const Tensor& values, const Tensor& x, std::vector<int64_t> window) {
  return product(values, x, window, true, "apply_transposed", kernels().apply_transposed);
}

}  // namespace
}  // namespace circulant

STABLE_TORCH_LIBRARY_IMPL(circulant_attention, CPU, m) {
  m.impl("apply_transposed", TORCH_BOX(&circulant::apply_transposed));
}
