#include "entry.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

// A constant: nothing here may run before the processor is known to have the instructions.
constexpr Engines kEngines{similarity, apply,     apply_transposed,
                           transpose,  attention, attention_backward};

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
