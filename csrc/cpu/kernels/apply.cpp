#include "entry.h"
#include "product.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S>
using ApplyKernel = ProductKernel<S, false>;

CIRCULANT_DEFINE_KERNEL(apply, ProductParams, ApplyKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
