// Fibers: functions with stacks of their own, which one host thread runs in turns.
#pragma once

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_on_host {

struct Context {
#ifdef __x86_64__
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
};

struct Fiber {
  Context context;
  char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// Gives a fiber its stack.
void allocate_stack(Fiber& fiber);

// Makes a fiber call `entry` when it is next resumed, and abandons its earlier call. `entry` calls
// `entered` first and does not return.
void start(Fiber& fiber, void (*entry)());
void entered();

// Runs a fiber until it suspends itself. A fiber that is `done` is not resumed.
void resume(Fiber& fiber);
void suspend(Fiber& fiber, bool done);

}  // namespace cuda_on_host
