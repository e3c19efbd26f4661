// The entry points of the kernels.
#pragma once

#include "../dispatch.h"
#include "../simd/half.h"
#include "arena.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

#define CIRCULANT_DECLARE(name, Params)                                         \
  int64_t name##_scratch_bytes(const Params& params, const Params::Item& item); \
  void name(const Params& params, const Params::Item& item, void* scratch);
CIRCULANT_FOR_EACH_KERNEL(CIRCULANT_DECLARE)
#undef CIRCULANT_DECLARE

extern const Kernels kKernels;

// Calls f with a value of the element type that `dtype` names.
template <class F>
inline auto visit_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::kFloat16:
      return f(Half{});
    case Dtype::kBFloat16:
      return f(BFloat16{});
    case Dtype::kFloat32:
      return f(float{});
    default:
      return f(double{});
  }
}

// Defines the entry points of kernel `name` with Class<S> for elements of type S. The constructor
// of the class takes the scratch memory from an arena, so that an arena that only counts gives its
// size.
#define CIRCULANT_DEFINE_KERNEL(name, Params, Class)                             \
  int64_t name##_scratch_bytes(const Params& params, const Params::Item& item) { \
    return visit_dtype(params.dtype, [&](auto element) {                         \
      Arena arena;                                                               \
      Class<decltype(element)> kernel(params, item, arena);                      \
      return arena.used();                                                       \
    });                                                                          \
  }                                                                              \
  void name(const Params& params, const Params::Item& item, void* scratch) {     \
    visit_dtype(params.dtype, [&](auto element) {                                \
      Arena arena(scratch);                                                      \
      Class<decltype(element)>(params, item, arena).run();                       \
    });                                                                          \
  }

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
