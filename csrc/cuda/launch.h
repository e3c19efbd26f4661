// Launches, shared memory and the limits of the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <cuda_runtime.h>

namespace circulant {

// Throws what a failed CUDA call reports. Defined beside the ops, so that kernels need nothing of
// torch.
void check_cuda(cudaError_t error);

struct Device {
  int multiprocessors;
  int shared_memory;        // bytes that a block can have
  int total_shared_memory;  // bytes that a multiprocessor has
  int block_shared_memory;  // bytes of these that a block takes beside its own

  // How many blocks with so many bytes each have room in a multiprocessor at a time.
  int resident(size_t bytes) const {
    return static_cast<int>(total_shared_memory / (bytes + block_shared_memory));
  }
};

inline Device current_device() {
  int index = 0;
  Device device{};
  check_cuda(cudaGetDevice(&index));
  check_cuda(
      cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index));
  check_cuda(cudaDeviceGetAttribute(&device.shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                    index));
  check_cuda(cudaDeviceGetAttribute(&device.total_shared_memory,
                                    cudaDevAttrMaxSharedMemoryPerMultiprocessor, index));
  check_cuda(cudaDeviceGetAttribute(&device.block_shared_memory,
                                    cudaDevAttrReservedSharedMemoryPerBlock, index));
  return device;
}

// The block's dynamic shared memory.
extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];

// What a block may have without asking for more.
constexpr size_t kDefaultSharedMemory = 48 * 1024;

// The third dim of a launch; kernels step over the groups that are left.
constexpr int64_t kMaxGridGroups = 65535;

// Runs `kernel` on (blocks, 1, groups) blocks.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), int64_t blocks, int64_t groups, int threads,
            size_t shared, cudaStream_t stream, std::common_type_t<Parameters>... arguments) {
  check_cuda(blocks <= INT32_MAX ? cudaSuccess : cudaErrorInvalidConfiguration);
  if (shared > kDefaultSharedMemory) {
    // All that there is, not `shared`: another thread may be about to launch the kernel with more.
    // Kernels have no shared memory of fixed size beside it.
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    current_device().shared_memory));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks), 1,
                        static_cast<unsigned>(groups < kMaxGridGroups ? groups : kMaxGridGroups));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::move(arguments)...));
}

}  // namespace circulant
