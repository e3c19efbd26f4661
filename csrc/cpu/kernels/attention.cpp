#include "../tiled/forward.h"

#include "engines.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

int64_t attention(const Attention& problem, const Chunk& chunk, void* scratch) {
  return run_for_dtype<Forward>(problem, chunk, scratch);
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
