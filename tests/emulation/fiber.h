// Stackful coroutines for the emulated CUDA threads: a hand-written switch on x86-64 (swapcontext
// makes two system calls a switch), ucontext elsewhere or where USCONF_EMULATE_UCONTEXT asks for
// it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

#if defined(__x86_64__) && !defined(USCONF_EMULATE_UCONTEXT)
#define USCONF_EMULATE_SWITCH
#else
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

constexpr std::size_t stack_bytes = 256 * 1024;  // touched only as far as a kernel uses it

struct Fiber {
#if defined(USCONF_EMULATE_SWITCH)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
  const void* stack;  // lowest address and size, for the sanitizer
  std::size_t size;
  void* fake_stack;
};

// One stack per thread of a block, kept for the life of the process.
inline char* fiber_stack(int index) {
  static char* const all = [] {
    void* p = mmap(nullptr, 1024 * stack_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::fputs("emulated CUDA: no memory for the threads' stacks\n", stderr);
      std::abort();
    }
    return static_cast<char*>(p);
  }();
  return all + index * stack_bytes;
}

#if defined(USCONF_EMULATE_SWITCH)
// System V: rbx, rbp, r12-r15 survive a call; everything else is the caller's to save.
__attribute__((naked, noinline)) inline void switch_stack(void** /*save*/, void* /*load*/) {
  __asm__ volatile(
      "pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
      "movq %rsp, (%rdi)\n\t"
      "movq %rsi, %rsp\n\t"
      "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\t"
      "ret");
}
#endif

// Told to the sanitizer on both sides of every switch, or it takes the new stack for a wild one.
// `final`: the fiber left behind never runs again.
inline void leave(Fiber& from, Fiber& to, bool final) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(final ? nullptr : &from.fake_stack, to.stack, to.size);
#else
  (void)from, (void)to, (void) final;
#endif
}
inline void arrive(Fiber& self, Fiber* origin) {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(self.fake_stack, &stack, &size);
  if (origin) origin->stack = stack, origin->size = size;
#else
  (void)self, (void)origin;
#endif
}

// The fiber being started and the one that starts it, for its first moment.
struct Entry {
  Fiber* self;
  Fiber* origin;
  void (*main)();
};
inline Entry& entry() {
  static Entry e;
  return e;
}

inline void fiber_main() {
  const Entry e = entry();
  arrive(*e.self, e.origin);
  e.main();
  std::abort();  // main ends in finish_fiber
}

inline void start_fiber(Fiber& f, int index, void (*main)()) {
  char* const low = fiber_stack(index);
  f.stack = low;
  f.size = stack_bytes;
  f.fake_stack = nullptr;
  entry().main = main;
#if defined(__SANITIZE_ADDRESS__)
  // The last block's threads never returned from their outermost frames.
  __asan_unpoison_memory_region(low, stack_bytes);
#endif
#if defined(USCONF_EMULATE_SWITCH)
  // Six registers, the address switch_stack returns to, and a slot that aligns fiber_main's frame.
  void** top = reinterpret_cast<void**>(low + stack_bytes) - 8;
  for (int i = 0; i < 8; ++i) top[i] = nullptr;
  top[6] = reinterpret_cast<void*>(fiber_main);
  f.stack_pointer = top;
#else
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = low;
  f.context.uc_stack.ss_size = stack_bytes;
  f.context.uc_link = nullptr;
  makecontext(&f.context, fiber_main, 0);
#endif
}

inline void jump(Fiber& from, Fiber& to) {
#if defined(USCONF_EMULATE_SWITCH)
  switch_stack(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
}

inline void switch_fiber(Fiber& from, Fiber& to) {
  entry().self = &to;
  entry().origin = &from;
  leave(from, to, false);
  jump(from, to);
  arrive(from, nullptr);
}

inline void finish_fiber(Fiber& from, Fiber& to) {
  leave(from, to, true);
  jump(from, to);
}

}  // namespace emulation
