#include "entry.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// A constant expression: no code of this instruction set may run before the processor is checked.
constexpr Kernels kKernels{
#define CIRCULANT_ENTRY(name, Params) {name##_scratch_bytes, name},
    CIRCULANT_FOR_EACH_KERNEL(CIRCULANT_ENTRY)
#undef CIRCULANT_ENTRY
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
