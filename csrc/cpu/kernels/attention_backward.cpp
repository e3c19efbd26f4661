#include "../tiled/backward.h"

#include "engines.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

int64_t attention_backward(const AttentionBackward& problem, const Chunk& chunk, void* scratch) {
  return run_for_dtype<Backward>(problem, chunk, scratch);
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
