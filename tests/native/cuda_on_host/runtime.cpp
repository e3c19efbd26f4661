// Memory and attributes of the emulated device.
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include <sys/mman.h>

#include <cuda_runtime.h>

namespace {

// Device memory has exactly the requested size, so that AddressSanitizer sees its ends. From a
// gigabyte on it is mapped: pages that are never written cost nothing. It holds zeros, so that
// cudaMemset to zero has nothing to do.
constexpr size_t kMapped = size_t(1) << 30;
std::map<void*, size_t> mapped;

}  // namespace

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (bytes < kMapped) {
    *memory = std::malloc(bytes);
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
  }
  *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (*memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  mapped[*memory] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  const auto found = mapped.find(memory);
  if (found == mapped.end()) {
    std::free(memory);
  } else {
    munmap(memory, found->second);
    mapped.erase(found);
  }
  return cudaSuccess;
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  if (value != 0 || mapped.count(memory) == 0) std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = SIZE_MAX;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

// Each device that was emulated so far has a number of its own, as its limits are kept.
cudaError_t cudaGetDevice(int* device) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  static std::map<std::tuple<int, int, int, int>, int> numbers;
  const auto& s = cuda_on_host::settings();
  const auto limits =
      std::make_tuple(s.multiprocessors, s.major, s.shared_memory, s.total_shared_memory);
  *device = numbers.emplace(limits, static_cast<int>(numbers.size())).first->second;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto& settings = cuda_on_host::settings();
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = settings.multiprocessors;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = settings.major;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = settings.total_shared_memory;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = settings.shared_memory;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      // The part of a multiprocessor that one block cannot have, on every device.
      *value = settings.total_shared_memory - settings.shared_memory;
      break;
  }
  return cudaSuccess;
}
