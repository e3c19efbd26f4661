// The part of the CUDA runtime that the kernels use, emulated on the host for tests.
//
// A .cu file compiles as C++ with this header in place of CUDA's. The threads of a block are fibers
// of one host thread: between two barriers a fiber runs alone, and the next one is drawn at random,
// so that a missing barrier changes results. Blocks run one after the other, in random order.
// Before each block its shared memory is filled with NaN. It has exactly the requested size, and
// AddressSanitizer sees its end (without AddressSanitizer, writes shortly past the end are found
// afterwards).
//
// What a warp does together (csrc/cuda/warp.cuh) is done when its last thread arrives.
//
// A launch fails with cudaErrorLaunchFailure, explained by cudaGetErrorString, if threads of a
// block wait at different barriers, or those of a warp at different instructions of the warp, if
// some wait while others have ended, or if shared memory is written past its end. It fails as on a
// device if the grid or the block is impossible or needs more shared memory than was allowed. A
// kernel may only be allowed all that a block can have: a device accepts less, but then another
// thread that launches the same kernel could fail.
//
// Not emulated: bank conflicts, coalescing, registers, the order of memory between blocks, time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "warp_machine.h"

// For tests that need the emulated device.
#define CUDA_ON_HOST

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
  unsigned x, y, z;
};

struct float2 {
  float x, y;
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
  cudaDevAttrComputeCapabilityMajor = 75,
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
cudaError_t cudaGetLastError();
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value);
const char* cudaGetErrorString(cudaError_t error);

namespace cuda_on_host {

// The emulated device.
struct Settings {
  uint64_t seed = 1;
  int multiprocessors = 4;
  int major = 9;                         // of the compute capability
  int shared_memory = 227 * 1024;        // of a block, at most
  int total_shared_memory = 228 * 1024;  // of a multiprocessor
  // If set, only the blocks for which it is true run.
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

// Of the running thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

#define __syncthreads() ::cuda_on_host::barrier(__FILE__, __LINE__)
