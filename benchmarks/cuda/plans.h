// Comes before each source of csrc/cuda, compiled for the host (tests/native/cuda_on_host):
// launches print their plans, a line of JSON each, and run nothing.
#pragma once

#include <cstdio>
#include <iterator>

#include <cuda_runtime.h>

namespace plans {

// Plans have different members: those that a plan lacks are not printed.
#define CIRCULANT_PRINT(name, value) \
  if constexpr (requires { value; }) std::printf(", \"" name "\": %d", int(value))

template <class Plan>
void print(const Plan& p) {
  CIRCULANT_PRINT("d", p.tile.d());
  CIRCULANT_PRINT("h", p.tile.h());
  CIRCULANT_PRINT("w", p.tile.w());
  CIRCULANT_PRINT("channel", p.channel);
  CIRCULANT_PRINT("warps", p.warps);
  CIRCULANT_PRINT("block_channels", p.block_channels);
  CIRCULANT_PRINT("segment", p.segment);
  CIRCULANT_PRINT("batch", p.batch);
  CIRCULANT_PRINT("chunk", p.chunk);
  CIRCULANT_PRINT("per_step", p.strips.per_step);
  CIRCULANT_PRINT("steps", p.strips.steps());
  CIRCULANT_PRINT("box_d", largest_box(p.strips).d);
  CIRCULANT_PRINT("box_h", largest_box(p.strips).h);
  CIRCULANT_PRINT("box_w", largest_box(p.strips).w);
  CIRCULANT_PRINT("octets", p.octets);
  CIRCULANT_PRINT("bands", p.bands);
  CIRCULANT_PRINT("chunks", p.chunks);
  CIRCULANT_PRINT("log_positions", p.log_positions);
}

template <class... Parameters, class... Arguments>
cudaError_t launch(const cudaLaunchConfig_t* config, void (*)(Parameters...),
                   const Arguments&... arguments) {
  std::printf("{\"blocks\": %lld", (long long)config->gridDim.x * config->gridDim.z);
  (print(arguments), ...);
  std::printf("}\n");
  return cudaSuccess;
}

// A launch of several parts, with a plan each: a line per part.
template <class... Parameters, class Parts, class... Arguments>
  requires requires(const Parts& parts) { parts.of[0].plan; }
cudaError_t launch(const cudaLaunchConfig_t* config, void (*)(Parameters...), const Parts& parts,
                   const Arguments&...) {
  for (const auto& part : parts.of) {
    const long long groups = config->gridDim.z / std::size(parts.of);
    std::printf("{\"blocks\": %lld", part.blocks * groups);
    print(part.plan);
    std::printf("}\n");
  }
  return cudaSuccess;
}

}  // namespace plans

#define cudaLaunchKernelEx plans::launch
