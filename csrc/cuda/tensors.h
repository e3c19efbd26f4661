// What the ops on CUDA tensors have in common: streams, and sizes against the limits of the
// kernels.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include "../common/checks.h"
#include "../common/constants.h"
#include "../common/dtype.h"
#include "../common/geometry.h"
#include "kernels.h"

namespace circulant {

using torch::stable::accelerator::DeviceGuard;

// torch's current stream on the device of `x`.
inline cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline void check_same_device(const Tensor& a, const Tensor& b, const char* op) {
  STD_TORCH_CHECK(a.device() == b.device(), op, ": tensors are on different devices");
}

inline int checked_channels(int64_t channels, const char* op) {
  STD_TORCH_CHECK(channels <= kMaxChannels, op, ": on CUDA a group can have ", kMaxChannels,
                  " channels, got ", channels);
  return static_cast<int>(channels);
}

inline Problem checked_problem(int64_t groups, int64_t channels, const Geometry& geometry,
                               const char* op) {
  for (const int64_t pixels : {geometry.pixels(), geometry.key_pixels()}) {
    STD_TORCH_CHECK(pixels <= kMaxPixels, op, ": on CUDA a grid can have ", kMaxPixels,
                    " pixels, got ", pixels);
  }
  STD_TORCH_CHECK(geometry.offsets() <= kMaxOffsets, op, ": on CUDA a window can have ",
                  kMaxOffsets, " offsets, got ", geometry.offsets());
  return {groups, checked_channels(channels, op), Pattern(geometry)};
}

// Checks sizes against the limits of attention's kernels.
inline AttentionProblem checked_attention_problem(int64_t groups, int64_t channels,
                                                  int64_t value_channels, const Geometry& geometry,
                                                  bool distance, double scale, const char* op) {
  const Problem problem = checked_problem(groups, channels, geometry, op);
  STD_TORCH_CHECK(problem.groups <= kMaxAttentionGroups, op, ": on CUDA there can be ",
                  kMaxAttentionGroups, " groups, got ", problem.groups);
  return {problem.groups,
          problem.pattern,
          {problem.channels, checked_channels(value_channels, op), distance, scale,
           (distance ? -0.5 : 1.0) * scale * kLog2E}};
}

}  // namespace circulant
