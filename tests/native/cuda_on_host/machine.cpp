// Runs the blocks of a launch, one after the other, with a fiber for each thread.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <cuda_runtime.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(from, size) (void)(from), (void)(size)
#define ASAN_UNPOISON_MEMORY_REGION(from, size) (void)(from), (void)(size)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {
constexpr size_t kSharedMost = 227 * 1024, kGuard = 4096;
}

namespace circulant {
// `extern __shared__` in csrc/cuda/launch.h: the linker gives the kernels this.
alignas(1024) unsigned char dynamic_shared_memory[kSharedMost + kGuard];
}  // namespace circulant

namespace cuda_on_host {
namespace {

// ---- stacks ----

constexpr size_t kPage = 4096, kStack = 256 * 1024;  // pages that are never touched cost nothing

#ifdef __x86_64__
struct Context {
  void* stack_pointer = nullptr;
};

// Saves the registers that a call preserves on the stack of `from` and takes those of `to`.
[[gnu::naked, gnu::noinline]] void switch_stack(void** /* from */, void* /* to */) {
  asm("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15;"
      "movq %rsp, (%rdi); movq %rsi, %rsp;"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret");
}

void switch_context(Context& from, Context& to) {
  switch_stack(&from.stack_pointer, to.stack_pointer);
}

void start_context(Context& context, char* stack, void (*entry)()) {
  void** const top = reinterpret_cast<void**>(stack + kStack);
  top[-1] = nullptr;  // `entry` returns to nobody
  top[-2] = reinterpret_cast<void*>(entry);
  context.stack_pointer = top - 8;  // six registers, whose values do not matter
}
#else
struct Context {
  ucontext_t context;
};

void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

void start_context(Context& context, char* stack, void (*entry)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack;
  context.context.uc_stack.ss_size = kStack;
  makecontext(&context.context, entry, 0);
}
#endif

// ---- fibers ----

enum class State { ready, waiting, done };

struct Fiber {
  Context context;
  char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  uint3 thread;
  State state;
  const char* file;  // of the barrier at which it waits
  int line;
};

struct Machine {
  Context host;
  void* fake_stack = nullptr;
  const void* host_stack = nullptr;
  size_t host_stack_size = 0;

  std::vector<Fiber> fibers;  // as many as the largest block had threads
  std::vector<Fiber*> ready;
  Fiber* running = nullptr;
  void (*call)(void*) = nullptr;
  void* kernel = nullptr;
  std::exception_ptr failure;
  uint64_t random = 0;

  // A number below n, by a linear congruential generator: one is drawn for every step of a thread.
  uint64_t below(uint64_t n) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 32) * n >> 32;
  }
};

Machine machine;

void resume(Fiber& fiber) {
  machine.running = &fiber;
  threadIdx = fiber.thread;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&machine.fake_stack, fiber.stack, kStack);
#endif
  switch_context(machine.host, fiber.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(machine.fake_stack, nullptr, nullptr);
#endif
}

void leave(Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fiber.state == State::done ? nullptr : &fiber.fake_stack,
                                 machine.host_stack, machine.host_stack_size);
#endif
  switch_context(fiber.context, machine.host);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &machine.host_stack, &machine.host_stack_size);
#endif
}

void run_thread() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &machine.host_stack, &machine.host_stack_size);
#endif
  try {
    machine.call(machine.kernel);
  } catch (...) {
    machine.failure = std::current_exception();
  }
  machine.running->state = State::done;
  leave(*machine.running);
  std::abort();  // a thread that is done is not resumed
}

void reserve(size_t count) {
  while (machine.fibers.size() < count) {
    void* const base = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) throw std::runtime_error("cuda_on_host: no memory for stacks");
    mprotect(base, kPage, PROT_NONE);
    machine.fibers.emplace_back();
    machine.fibers.back().stack = static_cast<char*>(base) + kPage;
  }
}

// ---- blocks ----

std::string describe(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

// All threads of a block wait at one barrier, or an error that names two that do not.
void check_barrier(size_t threads) {
  const Fiber& first =
      *std::find_if(machine.fibers.begin(), machine.fibers.begin() + threads,
                    [](const Fiber& fiber) { return fiber.state == State::waiting; });
  for (size_t i = 0; i < threads; ++i) {
    const Fiber& other = machine.fibers[i];
    if (other.state == State::waiting && other.line == first.line && other.file == first.file)
      continue;
    throw std::runtime_error(
        "cuda_on_host: in block " + describe(blockIdx) + " thread " + describe(first.thread) +
        " waits at " + first.file + ":" + std::to_string(first.line) + " while thread " +
        describe(other.thread) +
        (other.state == State::done
             ? " has ended"
             : std::string(" waits at ") + other.file + ":" + std::to_string(other.line)));
  }
}

void run_block(const uint3& block, const cudaLaunchConfig_t& config) {
  const dim3& size = config.blockDim;
  blockIdx = block;
  blockDim = size;
  gridDim = config.gridDim;
  const size_t threads = size_t(size.x) * size.y * size.z;
  machine.ready.clear();
  for (size_t i = 0; i < threads; ++i) {
    Fiber& fiber = machine.fibers[i];
    const unsigned t = static_cast<unsigned>(i);
    fiber.thread = {t % size.x, t / size.x % size.y, t / size.x / size.y};
    fiber.state = State::ready;
    ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStack);  // what an abandoned block left behind
    start_context(fiber.context, fiber.stack, run_thread);
    machine.ready.push_back(&fiber);
  }
  for (size_t done = 0; done < threads;) {
    if (machine.ready.empty()) {
      check_barrier(threads);
      for (size_t i = 0; i < threads; ++i) {
        machine.fibers[i].state = State::ready;
        machine.ready.push_back(&machine.fibers[i]);
      }
    }
    std::swap(machine.ready[machine.below(machine.ready.size())], machine.ready.back());
    Fiber& fiber = *machine.ready.back();
    machine.ready.pop_back();
    resume(fiber);
    if (machine.failure) std::rethrow_exception(std::exchange(machine.failure, nullptr));
    done += fiber.state == State::done;
  }
}

void run_blocks(const cudaLaunchConfig_t& config) {
  const dim3& grid = config.gridDim;
  unsigned char* const shared = circulant::dynamic_shared_memory;
  const size_t size = config.dynamicSmemBytes;
  std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), uint64_t(0));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[machine.below(i)]);
  for (const uint64_t i : order) {
    const uint3 block{unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                      unsigned(i / grid.x / grid.y)};
    if (settings().only && !settings().only(block, grid)) continue;
    std::memset(shared, 0xff, size + kGuard);
    ASAN_POISON_MEMORY_REGION(shared + size, kSharedMost + kGuard - size);
    try {
      run_block(block, config);
    } catch (...) {
      ASAN_UNPOISON_MEMORY_REGION(shared, kSharedMost + kGuard);
      throw;
    }
    ASAN_UNPOISON_MEMORY_REGION(shared, kSharedMost + kGuard);
    if (std::any_of(shared + size, shared + size + kGuard,
                    [](unsigned char byte) { return byte != 0xff; })) {
      throw std::runtime_error("cuda_on_host: block " + describe(block) +
                               " wrote past the end of its shared memory");
    }
  }
}

std::mutex one_launch_at_a_time;
std::map<const void*, int> allowed_shared_memory;
std::string failure_text;

}  // namespace

Settings& settings() {
  static Settings settings;
  return settings;
}

void barrier(const char* file, int line) {
  Fiber& fiber = *machine.running;
  fiber.state = State::waiting;
  fiber.file = file;
  fiber.line = line;
  leave(fiber);
}

cudaError_t run(const void* function, const cudaLaunchConfig_t& config, void (*call)(void*),
                void* kernel) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 ||
      !threads || threads > 1024 || block.z > 64) {
    return cudaErrorInvalidConfiguration;
  }
  const auto allowed = allowed_shared_memory.find(function);
  const int most = allowed == allowed_shared_memory.end() ? 48 * 1024 : allowed->second;
  if (config.dynamicSmemBytes > size_t(most)) return cudaErrorInvalidValue;
  machine.random = settings().seed++;
  machine.call = call;
  machine.kernel = kernel;
  try {
    reserve(threads);
    run_blocks(config);
  } catch (const std::exception& failure) {
    failure_text = failure.what();
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

}  // namespace cuda_on_host

// Device memory is exactly as large as was asked for, so that AddressSanitizer sees its ends.
// Beyond a gigabyte it is mapped instead, and what is never written costs nothing: cudaMemset to
// zero, which is what mapped memory holds, is all that is done with it as a whole.
constexpr size_t kMapped = size_t(1) << 30;
std::map<void*, size_t> mapped;

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

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto& settings = cuda_on_host::settings();
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = settings.multiprocessors;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = settings.total_shared_memory;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = settings.shared_memory;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      // What one block cannot have of a multiprocessor, on every device.
      *value = settings.total_shared_memory - settings.shared_memory;
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value) {
  const std::lock_guard<std::mutex> lock(cuda_on_host::one_launch_at_a_time);
  if (value > cuda_on_host::settings().shared_memory) return cudaErrorInvalidValue;
  if (value < cuda_on_host::settings().shared_memory) {
    cuda_on_host::failure_text =
        "cuda_on_host: a kernel is allowed less shared memory than another thread may ask for";
    return cudaErrorLaunchFailure;
  }
  int& most = cuda_on_host::allowed_shared_memory[function];
  most = value;
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      return cuda_on_host::failure_text.c_str();
  }
  return "unknown error";
}
