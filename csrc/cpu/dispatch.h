// Kernels of every op, compiled once per instruction set, and the choice between these at run time.
//
// An op checks its arguments, allocates its outputs, cuts the work into items and runs the kernel
// on each of them.
#pragma once

#include <cstdint>

#include "params.h"

namespace circulant {

// Every kernel and its parameters. csrc/cpu/kernels/NAME.cpp defines the kernel NAME.
// clang-format off
#define CIRCULANT_FOR_EACH_KERNEL(f)             \
  f(similarity, SimilarityParams)                \
  f(adjacency, AdjacencyParams)                  \
  f(apply, ProductParams)                        \
  f(apply_transposed, ProductParams)             \
  f(transpose, TransposeParams)                  \
  f(attention, AttentionParams)                  \
  f(attention_backward, AttentionBackwardParams) \
  f(softmax_backward, SoftmaxBackwardParams)
// clang-format on

template <class Params>
struct Kernel {
  using Item = typename Params::Item;
  // The bytes of scratch memory that `run` needs for an item; they depend on its sizes only.
  int64_t (*scratch_bytes)(const Params& params, const Item& item);
  // Computes one item. `scratch` is aligned to 64 bytes.
  void (*run)(const Params& params, const Item& item, void* scratch);
};

// The kernels of one instruction set.
struct Kernels {
#define CIRCULANT_FIELD(name, Params) Kernel<Params> name;
  CIRCULANT_FOR_EACH_KERNEL(CIRCULANT_FIELD)
#undef CIRCULANT_FIELD
};

// The kernels of the fastest instruction set of this processor, chosen on the first call. The
// environment variable CIRCULANT_ATTENTION_CPU (avx512, avx2 or plain) forces a choice; one that
// this processor or this build lacks is an error.
const Kernels& kernels();

}  // namespace circulant
