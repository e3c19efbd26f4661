#include "entry.h"
#include "product.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
using ApplyTransposedKernel = ProductKernel<S, true>;

CIRCULANT_DEFINE_KERNEL(apply_transposed, ProductParams, ApplyTransposedKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
