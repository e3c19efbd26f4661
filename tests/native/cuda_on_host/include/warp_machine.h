// What warp_twins.h needs of the machine.
#pragma once

#include <cstdint>

namespace cuda_on_host {

// Waits until the 32 threads of the warp have called this, at one line. The last one of them calls
// `act` with what each lane has given.
void meet_warp(void* given, void (*act)(void* const* lanes), const char* file, int line);

// What a lane gives to each function. They are in warp.cpp.
struct Product {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
  bool is_bfloat16;
};
void multiply(void* const* products);

struct Load {
  uint32_t* matrices;
  const uint16_t* row;
  bool is_transposed;
};
void load(void* const* loads);

struct Exchange {
  double given, received;
  int mask;
};
void exchange(void* const* exchanges);

// A copy sets its target to NaN when it starts, and is made when it is waited for: too early and
// too late are both seen.
void start_copy(void* to, const void* from, int bytes);
void commit_copies();
void wait_copies(int left);
// For the thread of a block with this number, before it starts.
void forget_copies(unsigned thread);
unsigned thread_number();

}  // namespace cuda_on_host
