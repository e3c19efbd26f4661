#include "fibers.h"

#include <cstddef>
#include <stdexcept>

#include <sys/mman.h>

#include <cuda_runtime.h>

#include "poison.h"

namespace cuda_on_host {
namespace {

constexpr size_t kPage = 4096, kStack = 256 * 1024;  // pages that are never touched cost nothing

// The host thread, while a fiber runs.
Context host;
[[maybe_unused]] void* host_fake_stack = nullptr;
[[maybe_unused]] const void* host_stack = nullptr;
[[maybe_unused]] size_t host_stack_size = 0;

#ifdef __x86_64__
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
  top[-1] = nullptr;  // the return address of `entry`, which does not return
  top[-2] = reinterpret_cast<void*>(entry);
  context.stack_pointer = top - 8;  // six registers, of any value
}
#else
void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

void start_context(Context& context, char* stack, void (*entry)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack;
  context.context.uc_stack.ss_size = kStack;
  makecontext(&context.context, entry, 0);
}
#endif

}  // namespace

void allocate_stack(Fiber& fiber) {
  void* const base = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw std::runtime_error("cuda_on_host: no memory for stacks");
  mprotect(base, kPage, PROT_NONE);  // a stack that overflows ends the process
  fiber.stack = static_cast<char*>(base) + kPage;
}

void start(Fiber& fiber, void (*entry)()) {
  ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStack);  // left by a fiber that was abandoned
  start_context(fiber.context, fiber.stack, entry);
}

void entered() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_size);
#endif
}

void resume(Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&host_fake_stack, fiber.stack, kStack);
#endif
  switch_context(host, fiber.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(host_fake_stack, nullptr, nullptr);
#endif
}

void suspend(Fiber& fiber, [[maybe_unused]] bool done) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(done ? nullptr : &fiber.fake_stack, host_stack, host_stack_size);
#endif
  switch_context(fiber.context, host);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &host_stack, &host_stack_size);
#endif
}

}  // namespace cuda_on_host
