// The limits that the kernels are compared with: fused multiply-adds, and a copy into new memory.
// limits.py compiles this file for the processor at hand.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include <sys/mman.h>

namespace {

// Independent sums: at least the latency times the number of units, few enough for the registers.
#if defined(__aarch64__)
constexpr int kSums = 24;
#else
constexpr int kSums = 12;
#endif
constexpr std::size_t kHugePage = std::size_t(1) << 21;

double now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

// Calls work(0) to work(threads - 1), each on its own thread, all at once. Returns the seconds from
// the first start to the last end.
template <class Work>
double in_parallel(int threads, const Work& work) {
  std::vector<double> starts(threads), ends(threads);
  std::atomic<int> missing(threads);
  const auto run = [&](int thread) {
    --missing;
    while (missing > 0) {
    }
    starts[thread] = now();
    work(thread);
    ends[thread] = now();
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  return *std::max_element(ends.begin(), ends.end()) -
         *std::min_element(starts.begin(), starts.end());
}

typedef float Vector64 __attribute__((vector_size(64)));
typedef float Vector32 __attribute__((vector_size(32)));
typedef float Vector16 __attribute__((vector_size(16)));

// sum = sum * factor + term, iterated; returns by how much all lanes of all sums grew.
template <class Vector>
double multiply_add(std::int64_t iterations, float factor, float term) {
  const Vector factors = Vector{} + factor, terms = Vector{} + term;
  // Equal sums would become one: they start at different numbers.
  Vector sums[kSums];
  for (int s = 0; s < kSums; ++s) sums[s] = Vector{} + static_cast<float>(s);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 24
    for (int s = 0; s < kSums; ++s) sums[s] = sums[s] * factors + terms;
  }
  double total = 0;
  for (int s = 0; s < kSums; ++s) {
    for (std::size_t lane = 0; lane < sizeof(Vector) / sizeof(float); ++lane) {
      total += sums[s][lane] - s;
    }
  }
  return total;
}

}  // namespace

extern "C" {

// Bytes of the widest vector of floats.
int widest_vector() {
#if defined(__AVX512F__)
  return 64;
#elif defined(__AVX__)
  return 32;
#else
  return 16;
#endif
}

// The seconds of the loop on every thread, and the growth of all sums. With factor = term = 1, the
// total is the number of multiply-adds, exact below 2^24 iterations.
double multiply_adds(int vector, int threads, std::int64_t iterations, float factor, float term,
                     double* total) {
  std::vector<double> totals(threads);
  const double seconds = in_parallel(threads, [&](int thread) {
    totals[thread] = vector == 64   ? multiply_add<Vector64>(iterations, factor, term)
                     : vector == 32 ? multiply_add<Vector32>(iterations, factor, term)
                                    : multiply_add<Vector16>(iterations, factor, term);
  });
  *total = 0;
  for (double each : totals) *total += each;
  return seconds;
}

// The seconds to map huge pages, to copy `bytes` bytes into them, and to unmap them; negative if
// the memory is refused or the copy differs.
double copy_into_new_memory(const char* source, std::size_t bytes, int threads) {
  double start = now();
  const std::size_t length = bytes + 2 * kHugePage;
  void* map = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return -1;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(map);
  char* target = static_cast<char*>(map) + (kHugePage - address % kHugePage) % kHugePage;
#if defined(MADV_HUGEPAGE)
  madvise(target, bytes + kHugePage - bytes % kHugePage, MADV_HUGEPAGE);
#endif
  const std::size_t pages = (bytes + kHugePage - 1) / kHugePage;
  in_parallel(threads, [&](int thread) {
    const std::size_t begin = std::min(bytes, pages * thread / threads * kHugePage);
    const std::size_t end = std::min(bytes, pages * (thread + 1) / threads * kHugePage);
    std::memcpy(target + begin, source + begin, end - begin);
  });
  double seconds = now() - start;
  const bool same = std::memcmp(target, source, bytes) == 0;
  start = now();
  munmap(map, length);
  seconds += now() - start;
  return same ? seconds : -1;
}
}
