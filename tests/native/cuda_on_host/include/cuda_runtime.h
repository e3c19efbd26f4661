// The part of the CUDA runtime that this project's kernels use, for running them on the host in
// tests.
//
// A .cu file compiles as C++ with this header in place of CUDA's. The threads of a block are fibers
// of one host thread: between two barriers a fiber runs alone, and which one comes next is drawn at
// random, so that a missing barrier changes results. Blocks run one after the other, in random
// order. Before each block its shared memory is filled with NaN; it is exactly as large as was
// asked for, and AddressSanitizer sees its end (without it, writes shortly past the end are found
// afterwards).
//
// A launch fails with cudaErrorLaunchFailure, and cudaGetErrorString says why, if threads of a
// block wait at different barriers, or some wait that others never reach, or shared memory is
// written past its end. It fails as on a device if the grid or the block is impossible or wants
// more shared memory than was allowed. A kernel may be allowed only all that a block can have: on a
// device less is possible, but would hold for launches of the same kernel by other threads, too.
//
// What is not seen here: bank conflicts, coalescing, registers, order of memory between blocks,
// time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>

// For what only this device can do.
#define CUDA_ON_HOST

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using std::max;
using std::min;

using cudaStream_t = struct CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrReservedSharedMemoryPerBlock = 111,
};

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
};

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
};

cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemset(void* memory, int value, size_t bytes);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value);
const char* cudaGetErrorString(cudaError_t error);

namespace cuda_on_host {

// The device that is played.
struct Settings {
  uint64_t seed = 1;
  int multiprocessors = 4;
  int shared_memory = 227 * 1024;        // that a block can have
  int total_shared_memory = 228 * 1024;  // of a multiprocessor
  // Runs only the blocks for which this is true, where all would take too long.
  std::function<bool(const uint3& block, const dim3& grid)> only;
};
Settings& settings();

void barrier(const char* file, int line);

cudaError_t run(const void* function, const cudaLaunchConfig_t& config, void (*call)(void*),
                void* kernel);

}  // namespace cuda_on_host

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  auto call = [&] { kernel(static_cast<Parameters>(arguments)...); };
  return cuda_on_host::run(
      reinterpret_cast<const void*>(kernel), *config,
      [](void* bound) { (*static_cast<decltype(call)*>(bound))(); }, &call);
}

// Those of the running thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

#define __syncthreads() ::cuda_on_host::barrier(__FILE__, __LINE__)
