// Compares the CUDA kernels with loops written from the definition: on the host, with the headers
// of this directory, or on a GPU, compiled by nvcc.
//
// Usage: check [part=NAME] [dtype=float32] [cases=60] [seed=1] [failures=10]
// Without a part, see run(), all of them run; without dtype=float32, on every dtype. With it,
// tensor cores run on float16. Ends with status 1 if a result differs, at the latest after that
// many failures.
#include <functional>
#include <map>
#include <utility>

#include "check.h"

namespace circulant {
void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
}  // namespace circulant

namespace check {
namespace {

// Cases that random ones may miss.
const Case kBorderCases[] = {
    {1, 1, {1, 1, 1}, {1, 1, 1}},       // one pixel
    {1, 3, {1, 1, 50}, {1, 1, 1}},      // window 1
    {2, 9, {1, 1, 7}, {1, 1, 7}},       // 1-D: window = grid
    {1, 3, {4, 5, 6}, {1, 1, 1}},       // window 1
    {1, 0, {1, 3, 5}, {1, 3, 3}},       // no channel
    {1, 4, {1, 8, 32}, {1, 1, 1}},      // exactly a tile
    {1, 3, {1, 5, 5}, {1, 5, 5}},       // 2-D: window = grid, grid smaller than a tile
    {2, 5, {3, 3, 3}, {3, 3, 3}},       // 3-D: window = grid
    {1, 2, {9, 2, 3}, {9, 1, 3}},       // a block has units of many planes
    {1, 33, {1, 1, 41}, {1, 1, 41}},    // as an image of one row
    {1, 64, {1, 6, 40}, {1, 5, 39}},    // tiles of several rows that are longer than a segment
    {1, 3, {1, 41, 1}, {1, 41, 1}},     // of one column: a plane filled up to whole blocks
    {1, 17, {1, 9, 33}, {1, 3, 3}},     // one pixel more in each dim
    {1, 70, {1, 12, 20}, {1, 7, 9}},    // more channels than a block has
    {2, 33, {1, 1, 257}, {1, 1, 31}},   // a tile and one pixel
    {3, 1, {1, 10, 37}, {1, 3, 7}},     // three groups
    {1, 50, {1, 1, 300}, {1, 1, 201}},  // and longer than a segment
    {1, 18, {8, 8, 8}, {5, 5, 5}},      // units of a block cross planes
    {1, 2, {1, 90, 3}, {1, 81, 3}},     // tall
    {1, 2, {1, 3, 90}, {1, 3, 81}},     // wide
    {1, 9, {5, 9, 17}, {3, 5, 7}},      // odd sizes
    {1, 4, {3, 34, 3}, {3, 33, 3}},     // planes filled up to whole blocks
    {1, 40, {1, 16, 34}, {1, 15, 15}},  // several blocks of channels
    {1, 8, {1, 12, 35}, {1, 9, 35}},    // whole rows
    {1, 5, {1, 13, 35}, {1, 13, 33}},   // nearly the whole grid
    {1, 2, {1, 1, 600}, {1, 1, 401}},   // rows of the window filled up to whole blocks
    {1, 3, {2, 9, 40}, {1, 9, 39}},     // planes by themselves
    {1, 1, {1, 3, 250}, {1, 3, 249}},   // several rows filled up
    {1, 50, {1, 3, 150}, {1, 3, 101}},  // several rows of several segments
    {1, 1, {5, 13, 1}, {5, 1, 1}},      // a halo of many rows
};

// Windows beyond odd circular ones: each boundary in each dim, even, one-sided, dilated with and
// without a common divisor, larger than the grid.
constexpr Boundary C = kCircular, T = kTruncated, V = kValid;
const Case kWindowCases[] = {
    {1, 3, {1, 1, 41}, {1, 1, 8}, false, {0, 0, 7}, {1, 1, 1}, {C, C, T}},     // causal
    {2, 2, {1, 1, 30}, {1, 1, 7}, false, {0, 0, 2}, {1, 1, 4}, {C, C, C}},     // dilated circle
    {1, 2, {1, 1, 9}, {1, 1, 40}, false, {0, 0, 25}, {1, 1, 1}, {C, C, T}},    // larger
    {1, 2, {1, 1, 150}, {1, 1, 90}, false, {0, 0, 60}, {1, 1, 2}, {C, C, T}},  // several batches
    {1, 3, {1, 1, 70}, {1, 1, 9}, false, {0, 0, 0}, {1, 1, 3}, {C, C, V}},     // dilated halo
    {1, 9, {1, 12, 36}, {1, 5, 7}, false, {0, 2, 3}, {1, 1, 1}, {C, T, C}},    // a globe
    {1, 5, {1, 11, 34}, {1, 4, 6}, true, {0, 2, 1}, {1, 1, 1}, {C, C, T}},     // even
    {1, 2, {1, 19, 40}, {1, 3, 5}, false, {0, 0, 4}, {1, 2, 3}, {C, C, T}},    // dilated
    {1, 4, {1, 13, 15}, {1, 3, 4}, true, {0, 1, 3}, {1, 3, 4}, {C, T, C}},     // coprime
    {1, 3, {1, 3, 17}, {1, 15, 3}, false, {0, 9, 1}, {1, 1, 1}, {C, T, T}},    // larger
    {2, 4, {1, 10, 13}, {1, 3, 5}, false, {0, 0, 0}, {1, 1, 1}, {C, V, C}},    // halo of rows
    {1, 3, {1, 1, 6}, {1, 4, 3}, false, {0, 0, 0}, {1, 3, 1}, {C, V, V}},      // keys unseen
    {1, 2, {5, 6, 9}, {2, 3, 3}, true, {0, 1, 2}, {2, 1, 1}, {T, C, T}},       // planes
    {1, 2, {4, 5, 7}, {3, 2, 3}, false, {0, 1, 1}, {1, 2, 2}, {V, T, C}},      // all
    {1, 2, {4, 5, 9}, {2, 3, 3}, false, {0, 1, 2}, {1, 1, 1}, {C, C, C}},      // one-sided
    {1, 2, {1, 5, 7}, {1, 2, 3}, false, {0, 0, 0}, {1, 1, 1}, {C, V, V}},      // halo of both
};

// Draws a problem; without `any_window` the window is odd and circular, without dilation.
Case random_case(bool any_window) {
  const auto below = [](int64_t n) { return static_cast<int64_t>(randomness() % n); };
  Case c{1 + below(2), 1 + below(below(4) ? 12 : 70), {1, 1, 1}, {1, 1, 1}};
  const int64_t dims = 1 + below(3), largest[3] = {90, 40, 10};
  const bool general = any_window && below(2) == 0;
  for (int64_t d = 3 - dims; d < 3; ++d) {
    const int64_t size = 1 + below(largest[dims - 1]);
    const int64_t reach = below(dims == 1 ? 30 : dims == 2 ? 10 : 4);
    c.size[d] = size;
    if (!general) {
      c.window[d] = std::min(1 + 2 * reach, (size - 1) / 2 * 2 + 1);
      continue;
    }
    c.boundary[d] = static_cast<Boundary>(below(3));
    c.dilation[d] = 1 + below(below(2) ? 3 : 1);
    c.window[d] = 1 + below(2 * reach + 2);
    if (c.boundary[d] == kCircular) {
      c.window[d] = std::min(c.window[d], (size - 1) / c.dilation[d] + 1);
    }
    if (below(2)) c.before[d] = below(c.window[d]);
  }
  c.infinite = below(4) == 0;
  return c;
}

using Options = std::map<std::string, std::string>;

// Calls `check` on each border case, with both devices or in turn with one of them.
template <class Check>
void on_borders(const Check& check, bool both) {
  int i = 0;
  for (Case c : kBorderCases) {
    c.infinite = i % 4 == 3;
    for (int device = 0; device < 2; ++device) {
      if (!both && i % 2 != device) continue;
      if (device == 0) choose_device(1, 64);
      if (device == 1) choose_device(132, i % 4 < 2 ? 100 : 228);
      check(c);
    }
    ++i;
  }
}

template <class Check>
void on_windows(const Check& check) {
  int i = 0;
  for (const Case& c : kWindowCases) {
    ++i % 2 ? choose_device(1, 64) : choose_device(132, 228);
    check(c);
  }
}

template <class Check>
void on_random(const Check& check, int cases, bool any_window = true) {
  for (int i = 0; i < cases; ++i) {
    choose_device(i % 2 ? 1 : 132, i % 3 ? 228 : 100);
    check(random_case(any_window));
  }
}

// Runs the chosen parts. Returns the exit status.
int run(Options options) {
  most_failures = std::stoi(options["failures"]);
  seed(std::stoull(options["seed"]));
  only_float32 = options["dtype"] == "float32";
  if (!only_float32 && options["dtype"] != "all") {
    throw std::invalid_argument("dtype is all or float32, not " + options["dtype"]);
  }
  const int cases = std::stoi(options["cases"]);
  const std::pair<const char*, std::function<void()>> parts[] = {
      {"fragments", check_fragments},
      {"borders", [] { on_borders(check_maps, true); }},
      {"adjacency", [] { on_borders(check_adjacency, false); }},
      {"attention", [] { on_borders(check_attention, false); }},
      {"biased", [] { on_borders(check_biased_attention, false); }},
      {"mma", [] { check_attention_mma(false); }},
      {"mma-terms", [] { check_attention_mma(true); }},
      {"mma-infinite", check_attention_mma_infinite},
      {"mma-plan", check_attention_mma_plan},
      {"mma-random", [&] { on_random(check_attention_mma_random, cases / 4); }},
      {"mma-groups", check_attention_mma_groups},
      {"mma-offsets", check_attention_mma_offsets},
      {"maps-mma", check_maps_mma},
      {"maps-mma-plan", check_maps_mma_plan},
      {"maps-mma-random", [&] { on_random(check_maps_mma_random, cases); }},
      {"maps-mma-groups", check_maps_mma_groups},
      {"maps-mma-offsets", check_maps_mma_offsets},
      {"random", [&] { on_random(check_maps, cases); }},
      {"adjacency-random", [&] { on_random(check_adjacency, cases); }},
      {"attention-random", [&] { on_random(check_attention, cases); }},
      {"biased-random", [&] { on_random(check_biased_attention, cases); }},
      {"windows", [] { on_windows(check_maps); }},
      {"adjacency-windows", [] { on_windows(check_adjacency); }},
      {"attention-windows", [] { on_windows(check_attention); }},
      {"biased-windows", [] { on_windows(check_biased_attention); }},
      {"positions", check_positions},
      {"limits", check_limits},
      {"plan", check_attention_plan},
      {"groups", check_maps_groups},
      {"adjacency-groups", check_adjacency_groups},
      {"attention-groups", check_attention_groups},
      {"biased-groups", check_biased_attention_groups},
      {"offsets", check_maps_offsets},
      {"adjacency-offsets", check_adjacency_offsets},
      {"attention-offsets", check_attention_offsets},
      {"biased-offsets", check_biased_attention_offsets},
  };
  bool known = options["part"].empty();
  for (const auto& [name, check] : parts) {
    if (!options["part"].empty() && options["part"] != name) continue;
    known = true;
    choose_device(132, 228);
    check();
  }
  if (!known) throw std::invalid_argument("there is no part " + options["part"]);
  std::printf("%s: %d comparisons, %d failures\n", failures ? "FAILED" : "passed", comparisons,
              failures);
  return failures != 0;
}

}  // namespace
}  // namespace check

int main(int argc, char** argv) {
  check::Options options{
      {"part", ""}, {"dtype", "all"}, {"cases", "60"}, {"seed", "1"}, {"failures", "10"}};
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const size_t sign = option.find('=');
    if (sign == std::string::npos || options.count(option.substr(0, sign)) == 0) {
      std::fprintf(stderr, "check: unknown option %s\n", argv[i]);
      return 2;
    }
    options[option.substr(0, sign)] = option.substr(sign + 1);
  }
  try {
    return check::run(options);
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 1;
  }
}
