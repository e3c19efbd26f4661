// The instructions of warp.cuh, written from the tables of fragments in the PTX manual.
#include <cmath>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <vector>

#include <cuda_runtime.h>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

namespace cuda_on_host {
namespace {

constexpr int kLanes = 32;

float number(uint32_t both, int which, bool is_bfloat16) {
  const uint16_t bits = static_cast<uint16_t>(both >> (16 * which));
  return is_bfloat16 ? float(c10::BFloat16(bits, c10::BFloat16::from_bits()))
                     : float(c10::Half(bits, c10::Half::from_bits()));
}

struct Copy {
  void* to;
  const void* from;
  int bytes;
  int group;
};
struct Copies {
  std::vector<Copy> started;
  int group = 0;
};
// A deque, whose elements stay where they are.
std::deque<Copies> copies_of_threads;

Copies& copies() {
  const size_t thread = thread_number();
  while (copies_of_threads.size() <= thread) copies_of_threads.emplace_back();
  return copies_of_threads[thread];
}

}  // namespace

void multiply(void* const* products) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const Product& p = *static_cast<const Product*>(products[lane]);
    const int row = lane / 4, pair = lane % 4 * 2;
    for (int which = 0; which < 2; ++which) {
      for (int matrix = 0; matrix < 4; ++matrix) {
        a[row + matrix % 2 * 8][matrix / 2 * 8 + pair + which] =
            number(p.a[matrix], which, p.is_bfloat16);
      }
      for (int matrix = 0; matrix < 2; ++matrix)
        b[matrix * 8 + pair + which][row] = number(p.b[matrix], which, p.is_bfloat16);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    float* const d = static_cast<const Product*>(products[lane])->d;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float sum = d[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      d[i] = sum;
    }
  }
}

void load(void* const* loads) {
  const auto given = [&](int lane) -> const Load& {
    return *static_cast<const Load*>(loads[lane]);
  };
  for (int lane = 0; lane < kLanes; ++lane) {
    if (reinterpret_cast<uintptr_t>(given(lane).row) % 16 != 0)
      throw std::runtime_error("cuda_on_host: a row of a matrix is not aligned to 16 bytes");
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const int row = lane / 4, pair = lane % 4 * 2;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto at = [&](int i, int j) { return uint32_t(given(matrix * 8 + i).row[j]); };
      given(lane).matrices[matrix] = given(lane).is_transposed
                                         ? at(pair, row) | at(pair + 1, row) << 16
                                         : at(row, pair) | at(row, pair + 1) << 16;
    }
  }
}

void exchange(void* const* exchanges) {
  for (int lane = 0; lane < kLanes; ++lane) {
    Exchange& to = *static_cast<Exchange*>(exchanges[lane]);
    to.received = static_cast<const Exchange*>(exchanges[lane ^ to.mask])->given;
  }
}

void start_copy(void* to, const void* from, int bytes) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % bytes != 0)
    throw std::runtime_error("cuda_on_host: a copy is not aligned to its " + std::to_string(bytes) +
                             " bytes");
  std::memset(to, 0xff, bytes);
  copies().started.push_back({to, from, bytes, copies().group});
}

void commit_copies() { ++copies().group; }

void wait_copies(int left) {
  Copies& mine = copies();
  size_t kept = 0;
  for (const Copy& copy : mine.started) {
    if (copy.group < mine.group - left) {
      std::memcpy(copy.to, copy.from, copy.bytes);
    } else {
      mine.started[kept++] = copy;
    }
  }
  mine.started.resize(kept);
}

void forget_copies(unsigned thread) {
  if (thread < copies_of_threads.size()) copies_of_threads[thread] = {};
}

}  // namespace cuda_on_host
