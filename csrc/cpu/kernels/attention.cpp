// Fused attention, forward and backward, once per instruction set.
#include "../fused/backward.h"
#include "../fused/forward.h"

namespace circulant::fused::CIRCULANT_INSTRUCTION_SET {
namespace {

// Works through a chunk with `Engine<S>`, S the type of the elements; without scratch memory it
// only says how many bytes of it are needed.
template <template <class> class Engine, class Problem>
int64_t run(const Problem& problem, const Chunk& chunk, void* scratch) {
  const auto with = [&](auto element) {
    Arena arena(scratch);
    Engine<decltype(element)> engine(problem, chunk, arena);
    if (scratch != nullptr) engine.run();
    return arena.used();
  };
  switch (problem.dtype) {
    case Dtype::kFloat16:
      return with(Half{});
    case Dtype::kBFloat16:
      return with(BFloat16{});
    case Dtype::kFloat32:
      return with(float{});
    default:
      return with(double{});
  }
}

}  // namespace

int64_t attention(const Attention& problem, const Chunk& chunk, void* scratch) {
  return run<Forward>(problem, chunk, scratch);
}

int64_t attention_backward(const AttentionBackward& problem, const Chunk& chunk, void* scratch) {
  return run<Backward>(problem, chunk, scratch);
}

}  // namespace circulant::fused::CIRCULANT_INSTRUCTION_SET
