#include "engines.h"

namespace circulant::CIRCULANT_INSTRUCTION_SET {

// A constant: nothing here may run before the processor is known to have the instructions.
constexpr Engines kEngines{
    {similarity_work, similarity_run},
    {apply_work, apply_run},
    {apply_transposed_work, apply_transposed_run},
    {transpose_work, transpose_run},
    fused::CIRCULANT_INSTRUCTION_SET::attention,
    fused::CIRCULANT_INSTRUCTION_SET::attention_backward,
};

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
