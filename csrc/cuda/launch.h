// Launches, shared memory and the limits of the device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <cuda_runtime.h>

#include "cache.h"
#include "problem.h"

namespace circulant {

// Throws if a CUDA call failed. Defined in ops.cu, so that the kernels do not depend on torch.
void check_cuda(cudaError_t error);

struct Device {
  int index = 0;
  int multiprocessors = 0;
  int shared_memory = 0;        // bytes available to a block
  int total_shared_memory = 0;  // bytes of a multiprocessor
  int block_shared_memory = 0;  // bytes of these that the system reserves per block
  int major = 0;                // of the compute capability

  // How many blocks with this much shared memory fit a multiprocessor at a time.
  int resident(size_t bytes) const {
    return static_cast<int>(total_shared_memory / (bytes + block_shared_memory));
  }
};

inline Device current_device() {
  int index = 0;
  check_cuda(cudaGetDevice(&index));
  return cached<Device>({index}, [index] {
    const auto attribute = [index](cudaDeviceAttr name) {
      int value = 0;
      check_cuda(cudaDeviceGetAttribute(&value, name, index));
      return value;
    };
    return Device{index,
                  attribute(cudaDevAttrMultiProcessorCount),
                  attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                  attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
                  attribute(cudaDevAttrReservedSharedMemoryPerBlock),
                  attribute(cudaDevAttrComputeCapabilityMajor)};
  });
}

// make(), for a pattern and other numbers on the current device.
template <class Plan, class Make>
Plan cached_plan(const Pattern& pattern, std::initializer_list<int64_t> others, const Make& make) {
  return cached<Plan>(plan_key(pattern, current_device().index, others), make);
}

// The block's dynamic shared memory. Kernels have no other.
extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];

// Bytes that a block may have without cudaFuncSetAttribute.
constexpr size_t kDefaultSharedMemory = 48 * 1024;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// Fails because no tile of the grid has a layout within `limit` bytes of shared memory.
[[noreturn]] inline void fail_to_tile(const char* op, const Pattern& pattern, int channels,
                                      int value_bytes, size_t limit) {
  const Extents &size = pattern.size, &window = pattern.window;
  fail(op, ": no tile of a grid of ", size.d, " x ", size.h, " x ", size.w, " pixels with window ",
       window.d, " x ", window.h, " x ", window.w, " and ", channels, " channels of ", value_bytes,
       " bytes fits ", limit, " bytes of shared memory");
}

// The largest z of a launch. Kernels loop over the remaining groups.
constexpr int64_t kMaxGridGroups = 65535;

struct Launch {
  const char* op;
  int64_t blocks, groups;
  int threads;
  size_t shared;  // bytes per block
  cudaStream_t stream;
};

// Runs `kernel` on (blocks, 1, groups) blocks.
template <class... Parameters>
void launch(const Launch& l, void (*kernel)(Parameters...),
            std::common_type_t<Parameters>... arguments) {
  if (l.blocks > INT32_MAX) {
    fail(l.op, ": needs ", l.blocks, " blocks per group, a launch can have ", INT32_MAX);
  }
  if (l.shared > kDefaultSharedMemory) {
    // All that there is, not `shared`: another thread may be about to launch the same kernel with
    // more.
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    current_device().shared_memory));
  }
  const int64_t groups = std::min(l.groups, kMaxGridGroups);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(l.blocks), 1, static_cast<unsigned>(groups));
  config.blockDim = dim3(static_cast<unsigned>(l.threads));
  config.dynamicSmemBytes = l.shared;
  config.stream = l.stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, std::move(arguments)...);
  if (error != cudaSuccess) {
    cudaGetLastError();  // clears it, or torch would report it after a launch of its own
    fail(l.op, ": the launch of ", l.blocks, " x ", groups, " blocks of ", l.threads,
         " threads with ", l.shared, " bytes of shared memory failed: ", cudaGetErrorString(error));
  }
}

}  // namespace circulant
