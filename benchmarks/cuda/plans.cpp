// Prints, for each op, its name and the plans of its launches on an H200: see plans.h. The
// arguments are groups, channels, rows, columns, window.
#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "../../csrc/common/constants.h"
#include "../../csrc/cuda/kernels.h"
#include "../../csrc/cuda/map_mma.h"

namespace circulant {

void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

namespace {

template <class T>
void print_attention(const AttentionProblem& problem, const char* dtype) {
  constexpr T* none = nullptr;
  constexpr accumulate_t<T>* no_sums = nullptr;
  std::printf("\"attention %s\"\n", dtype);
  attention<T>(none, none, none, none, no_sums, no_sums, {}, problem, nullptr);
  std::printf("\"attention_backward %s\"\n", dtype);
  attention_backward<T>(none, none, none, none, none, no_sums, no_sums, no_sums, none, none, none,
                        {}, {}, problem, nullptr);
}

// Of the half types, what their plans count: see MapSlots.
void print_slots(const Problem& problem, MapOp op, const char* name) {
  const MapSlots slots = map_slots(problem, op);
  std::printf("\"%s bfloat16\"\n{\"fma\": %.0f, \"mma\": %.0f}\n", name, slots.fma, slots.mma);
}

void print(int64_t groups, int channels, int64_t rows, int64_t columns, int64_t window) {
  const Pattern pattern(Geometry({1, rows, columns}, {1, window, window}));
  const Problem problem{groups, channels, pattern};
  float* const none = nullptr;
  std::printf("\"similarity float32\"\n");
  similarity(none, none, none, problem, false, nullptr);
  std::printf("\"apply float32\"\n");
  apply(none, none, none, problem, false, nullptr);
  std::printf("\"apply_transposed float32\"\n");
  apply(none, none, none, problem, true, nullptr);
  print_slots(problem, kMapSimilarity, "similarity");
  print_slots(problem, kMapApply, "apply");
  print_slots(problem, kMapTransposed, "apply_transposed");
  const double scale = 1 / std::sqrt(double(channels));
  const AttentionProblem attention{
      groups, pattern, {channels, channels, false, scale, scale * kLog2E}};
  print_attention<float>(attention, "float32");
  print_attention<c10::BFloat16>(attention, "bfloat16");
}

}  // namespace
}  // namespace circulant

int main(int, char** arguments) {
  auto& device = cuda_on_host::settings();
  device.multiprocessors = 132;
  device.major = 9;
  device.shared_memory = 227 * 1024;
  device.total_shared_memory = 228 * 1024;
  const auto number = [&](int i) { return std::atoi(arguments[i]); };
  circulant::print(number(1), number(2), number(3), number(4), number(5));
}
