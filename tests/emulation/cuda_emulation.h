// CUDA on the CPU: compiled in front of a .cu file, it runs the file's kernels on fibers, one fiber
// per CUDA thread, block after block. What it does not model does not compile or aborts with a
// message.
//
// Modelled: grids and blocks in three dimensions, static and dynamic shared memory, block and warp
// barriers, shuffles with a full mask, atomics, device memory, streams and events (everything runs
// at once). Shared and device memory start as 0xFF bytes, NaN in every floating type, so that a
// value read before it is written shows. Not modelled: how memory accesses of different threads are
// ordered between two barriers; thread orders forward, reverse and random stand in for that.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <source_location>
#include <vector>

#include "fiber.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// All shared variables lie in one section, so that a new block can poison them without knowing
// them.
#define __shared__ static __attribute__((section("usconf_shared")))

extern "C" {
extern char __start_usconf_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_usconf_shared[] __attribute__((weak, visibility("hidden")));
}

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace emulation {

enum class Order : int { forward = 0, reverse = 1, random = 2 };
enum class Wait : int { none, block, warp };

constexpr int warp_lanes = 32, most_threads = 1024, poison = 0xFF;
constexpr unsigned full_mask = 0xffffffffu;

struct Thread {
  Fiber fiber;
  dim3 index;
  int rank;
  Wait wait;
  bool done;
  int exchanges;  // shuffles so far: picks one of the warp's two mailboxes
};

// Threads that meet: all of a block, or of a warp.
struct Meeting {
  int members, arrived, left;
  std::source_location where;
};

struct Machine {
  dim3 grid, block, block_index;
  Thread threads[most_threads];
  Meeting whole, warps[most_threads / warp_lanes];
  std::uint64_t mailbox[most_threads / warp_lanes][2][warp_lanes];
  std::vector<char> dynamic_shared;
  std::function<void()> body;
  Thread* current = nullptr;
  Fiber scheduler;
  Order order = Order::forward;
  std::mt19937 random{1};
  long launches = 0;
  std::mutex busy;
};

inline Machine& machine() {
  static Machine m;
  return m;
}

[[noreturn]] inline void fail(const char* what, const std::source_location& at) {
  const Machine& m = machine();
  std::fprintf(stderr, "emulated CUDA: %s (%s:%u, block %u %u %u, thread %d)\n", what,
               at.file_name(), static_cast<unsigned>(at.line()), m.block_index.x, m.block_index.y,
               m.block_index.z, m.current ? m.current->rank : -1);
  std::fflush(stderr);
  std::abort();
}

inline Meeting& warp_of(const Thread& t) { return machine().warps[t.rank / warp_lanes]; }

// Releases the members of a complete meeting.
inline void release(Meeting& meeting, Thread* first, Wait kind) {
  meeting.arrived = 0;
  for (int i = 0; i < meeting.members; ++i)
    if (first[i].wait == kind) first[i].wait = Wait::none;
}

inline void meet(Wait kind, const std::source_location& where) {
  Machine& m = machine();
  Thread& self = *m.current;
  Meeting& meeting = kind == Wait::block ? m.whole : warp_of(self);
  if (kind == Wait::block && meeting.left > 0)
    fail("divergent __syncthreads: threads of the block have already left the kernel", where);
  if (meeting.arrived > 0 &&
      (meeting.where.line() != where.line() || meeting.where.column() != where.column()))
    fail("divergent barrier: threads wait at different places of the code", where);
  meeting.where = where;
  self.wait = kind;
  if (++meeting.arrived == meeting.members - meeting.left)
    release(meeting,
            kind == Wait::block ? m.threads : &m.threads[self.rank / warp_lanes * warp_lanes],
            kind);
  // Also the last one to arrive gives way: otherwise forward order would let it run ahead for ever.
  switch_fiber(self.fiber, m.scheduler);
}

inline void thread_main() {
  Machine& m = machine();
  m.body();
  Thread& self = *m.current;
  self.done = true;
  const auto here = std::source_location::current();
  if (m.whole.arrived > 0) fail("divergent __syncthreads: a thread left the kernel instead", here);
  if (warp_of(self).arrived > 0)
    fail("divergent warp operation: a lane left the kernel instead", here);
  ++m.whole.left;
  ++warp_of(self).left;
  finish_fiber(self.fiber, m.scheduler);
}

__attribute__((no_sanitize("address"))) inline void poison_shared() {
  // Not memset: the section holds the sanitizer's red zones, which memset must not cross.
  for (volatile char* p = __start_usconf_shared; p < __stop_usconf_shared; ++p)
    *p = static_cast<char>(poison);
  Machine& m = machine();
  std::fill(m.dynamic_shared.begin(), m.dynamic_shared.end(), static_cast<char>(poison));
}

inline void start_block() {
  Machine& m = machine();
  const int count = static_cast<int>(m.block.x * m.block.y * m.block.z);
  m.whole = {count, 0, 0, {}};
  for (int i = 0; i < count; ++i) {
    Thread& t = m.threads[i];
    const unsigned x = static_cast<unsigned>(i);
    t.index = dim3(x % m.block.x, x / m.block.x % m.block.y, x / (m.block.x * m.block.y));
    t.rank = i;
    t.wait = Wait::none;
    t.done = false;
    t.exchanges = 0;
    start_fiber(t.fiber, i, thread_main);
    if (i % warp_lanes == 0) m.warps[i / warp_lanes] = {std::min(warp_lanes, count - i), 0, 0, {}};
  }
  poison_shared();
}

// Runs every lane of a warp that can run up to its next barrier. False: none can.
inline bool run_warp(int warp) {
  Machine& m = machine();
  const int lanes = m.warps[warp].members;
  int order[warp_lanes];
  for (int i = 0; i < lanes; ++i) order[i] = m.order == Order::reverse ? lanes - 1 - i : i;
  if (m.order == Order::random) std::shuffle(order, order + lanes, m.random);
  bool moved = false;
  for (int i = 0; i < lanes; ++i) {
    Thread& t = m.threads[warp * warp_lanes + order[i]];
    if (t.done || t.wait != Wait::none) continue;
    moved = true;
    m.current = &t;
    switch_fiber(m.scheduler, t.fiber);
  }
  return moved;
}

// Forward and reverse: a warp runs on as far as the block's barriers let it before the next one
// starts. Random: a warp at a time takes one step.
inline void run_block() {
  Machine& m = machine();
  start_block();
  const int count = m.whole.members, warps = (count + warp_lanes - 1) / warp_lanes;
  while (m.whole.left < count) {
    bool moved = false;
    if (m.order == Order::random) {
      const int first = static_cast<int>(m.random() % static_cast<unsigned>(warps));
      for (int i = 0; i < warps && !moved; ++i) moved = run_warp((first + i) % warps);
    } else {
      for (int i = 0; i < warps; ++i)
        while (run_warp(m.order == Order::reverse ? warps - 1 - i : i)) moved = true;
    }
    if (!moved)
      fail("deadlock: threads wait at barriers that the others never reach", m.whole.where);
  }
  m.current = nullptr;
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes, A... arguments) {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.busy);
  const auto here = std::source_location::current();
  const std::size_t threads = std::size_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > most_threads) fail("a block needs 1 to 1024 threads", here);
  if (!grid.x || grid.x > 0x7fffffffu || !grid.y || grid.y > 65535 || !grid.z || grid.z > 65535)
    fail("a grid's size is out of range", here);
  m.grid = grid;
  m.block = block;
  // An exact allocation of its own, so that the sanitizer sees accesses past its end.
  m.dynamic_shared = std::vector<char>(shared_bytes);
  m.body = [=] { kernel(arguments...); };
  ++m.launches;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        m.block_index = dim3(x, y, z);
        run_block();
      }
}

// Every lane posts a value, all meet, each reads the value of the lane `source`. Two mailboxes in
// turn: a lane that runs ahead writes into the other one.
template <class T>
T exchange(unsigned mask, T value, int source, const std::source_location& where) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  Machine& m = machine();
  Thread& self = *m.current;
  if (mask != full_mask) fail("shuffles with a partial mask are not modelled", where);
  const int warp = self.rank / warp_lanes, lane = self.rank % warp_lanes;
  auto& box = m.mailbox[warp][self.exchanges++ & 1];
  std::memcpy(&box[lane], &value, sizeof(T));
  meet(Wait::warp, where);
  if (source < 0 || source >= warp_lanes) source = lane;
  if (source >= m.warps[warp].members) fail("shuffle from a lane that does not exist", where);
  std::memcpy(&value, &box[source], sizeof(T));
  return value;
}

inline int lane() { return machine().current->rank % warp_lanes; }

}  // namespace emulation

#define threadIdx (emulation::machine().current->index)
#define blockIdx (emulation::machine().block_index)
#define blockDim (emulation::machine().block)
#define gridDim (emulation::machine().grid)

#define USCONF_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (static_cast<void>(stream), emulation::launch(kernel, grid, block, shared_bytes, __VA_ARGS__))
#define USCONF_DYNAMIC_SHARED(type, name) \
  type* name = reinterpret_cast<type*>(emulation::machine().dynamic_shared.data())

using emulated_place = std::source_location;

inline void __syncthreads(emulated_place at = emulated_place::current()) {
  emulation::meet(emulation::Wait::block, at);
}
inline void __syncwarp(unsigned mask = emulation::full_mask,
                       emulated_place at = emulated_place::current()) {
  if (mask != emulation::full_mask)
    emulation::fail("__syncwarp with a partial mask is not modelled", at);
  emulation::meet(emulation::Wait::warp, at);
}
template <class T>
T __shfl_sync(unsigned mask, T v, int source, emulated_place at = emulated_place::current()) {
  return emulation::exchange(mask, v, source & 31, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, emulated_place at = emulated_place::current()) {
  return emulation::exchange(mask, v, emulation::lane() ^ bits, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, emulated_place at = emulated_place::current()) {
  return emulation::exchange(mask, v, emulation::lane() + static_cast<int>(by), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, emulated_place at = emulated_place::current()) {
  return emulation::exchange(mask, v, emulation::lane() - static_cast<int>(by), at);
}

// Memory has one order here.
inline void __threadfence() {}

using std::max;
using std::min;

inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }

// Fibers change places at barriers only, so plain arithmetic is atomic.
template <class T>
T atomicAdd(T* p, T v) {
  const T old = *p;
  *p = old + v;
  return old;
}
template <class T>
T atomicMax(T* p, T v) {
  const T old = *p;
  *p = std::max(old, v);
  return old;
}
template <class T>
T atomicMin(T* p, T v) {
  const T old = *p;
  *p = std::min(old, v);
  return old;
}

#include "runtime.h"
