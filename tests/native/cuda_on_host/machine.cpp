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

#include <cuda_runtime.h>

#include "fibers.h"
#include "poison.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {
constexpr size_t kSharedMost = 227 * 1024, kGuard = 4096;
}

namespace circulant {
// The `extern __shared__` array of csrc/cuda/launch.h.
alignas(1024) unsigned char dynamic_shared_memory[kSharedMost + kGuard];
}  // namespace circulant

namespace cuda_on_host {
namespace {

enum class State { ready, waiting, in_warp, done };  // in_warp: waits for its warp

struct Thread : Fiber {
  uint3 index;
  State state;
  const char* file;  // of the barrier, or instruction of its warp, at which it waits
  int line;
  void* given;  // to that instruction
};

constexpr size_t kLanes = 32;

struct Machine {
  std::vector<Thread> threads;  // as many as the largest block had
  std::vector<Thread*> ready;
  Thread* running = nullptr;
  void (*call)(void*) = nullptr;
  void* kernel = nullptr;
  std::exception_ptr failure;
  std::vector<size_t> arrived;  // threads of each warp that wait for it
  uint64_t random = 0;

  // Random, below n, by a linear congruential generator, since each step of a thread draws one.
  uint64_t below(uint64_t n) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 32) * n >> 32;
  }
};

Machine machine;

void run_thread() {
  entered();
  try {
    machine.call(machine.kernel);
  } catch (...) {
    machine.failure = std::current_exception();
  }
  machine.running->state = State::done;
  suspend(*machine.running, true);
  std::abort();  // a thread that is done is not resumed
}

std::string describe(const uint3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

// All threads of a block wait at one barrier, or an error that names two that do not.
void check_barrier(size_t threads) {
  const Thread& first =
      *std::find_if(machine.threads.begin(), machine.threads.begin() + threads,
                    [](const Thread& thread) { return thread.state != State::done; });
  for (size_t i = 0; i < threads; ++i) {
    const Thread& other = machine.threads[i];
    if (other.state == State::waiting && other.line == first.line && other.file == first.file)
      continue;
    throw std::runtime_error("cuda_on_host: in block " + describe(blockIdx) + " thread " +
                             describe(first.index) + " waits at " + first.file + ":" +
                             std::to_string(first.line) + " while thread " + describe(other.index) +
                             (other.state == State::done ? " has ended"
                                                         : std::string(" waits at ") + other.file +
                                                               ":" + std::to_string(other.line)));
  }
}

void run_block(const uint3& block, const cudaLaunchConfig_t& config) {
  const dim3& size = config.blockDim;
  blockIdx = block;
  blockDim = size;
  gridDim = config.gridDim;
  const size_t threads = size_t(size.x) * size.y * size.z;
  machine.ready.clear();
  machine.arrived.assign(threads / kLanes + 1, 0);
  for (size_t i = 0; i < threads; ++i) {
    Thread& thread = machine.threads[i];
    const unsigned t = static_cast<unsigned>(i);
    thread.index = {t % size.x, t / size.x % size.y, t / size.x / size.y};
    thread.state = State::ready;
    forget_copies(t);
    start(thread, run_thread);
    machine.ready.push_back(&thread);
  }
  for (size_t done = 0; done < threads;) {
    if (machine.ready.empty()) {
      check_barrier(threads);
      for (size_t i = 0; i < threads; ++i) {
        machine.threads[i].state = State::ready;
        machine.ready.push_back(&machine.threads[i]);
      }
    }
    std::swap(machine.ready[machine.below(machine.ready.size())], machine.ready.back());
    Thread& thread = *machine.ready.back();
    machine.ready.pop_back();
    machine.running = &thread;
    threadIdx = thread.index;
    resume(thread);
    if (machine.failure) std::rethrow_exception(std::exchange(machine.failure, nullptr));
    done += thread.state == State::done;
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
  Thread& thread = *machine.running;
  thread.state = State::waiting;
  thread.file = file;
  thread.line = line;
  suspend(thread, false);
}

unsigned thread_number() { return static_cast<unsigned>(machine.running - machine.threads.data()); }

void meet_warp(void* given, void (*act)(void* const* lanes), const char* file, int line) {
  Thread& thread = *machine.running;
  const size_t warp = thread_number() / kLanes;
  thread.state = State::in_warp;
  thread.file = file;
  thread.line = line;
  thread.given = given;
  if (++machine.arrived[warp] < kLanes) return suspend(thread, false);
  machine.arrived[warp] = 0;
  void* lanes[kLanes];
  for (size_t i = 0; i < kLanes; ++i) {
    Thread& other = machine.threads[warp * kLanes + i];
    if (other.file != file || other.line != line) {
      throw std::runtime_error("cuda_on_host: threads of a warp are at " + std::string(file) + ":" +
                               std::to_string(line) + " and " + other.file + ":" +
                               std::to_string(other.line));
    }
    lanes[i] = other.given;
  }
  act(lanes);
  for (size_t i = 0; i < kLanes; ++i) {
    Thread& other = machine.threads[warp * kLanes + i];
    other.state = State::ready;
    if (&other != &thread) machine.ready.push_back(&other);
  }
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
    while (machine.threads.size() < threads) allocate_stack(machine.threads.emplace_back());
    run_blocks(config);
  } catch (const std::exception& failure) {
    failure_text = failure.what();
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

}  // namespace cuda_on_host

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value) {
  const std::lock_guard<std::mutex> lock(cuda_on_host::one_launch_at_a_time);
  if (value > cuda_on_host::settings().shared_memory) return cudaErrorInvalidValue;
  if (value < cuda_on_host::settings().shared_memory) {
    cuda_on_host::failure_text =
        "cuda_on_host: a kernel is allowed less shared memory than another thread may need";
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
