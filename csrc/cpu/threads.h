// The package's own thread pool: one team of threads runs one region together (SPMD).
#pragma once

#include <atomic>
#include <functional>

namespace usconf::cpu {

// A member's view of its team. Every member runs the same body; barrier() lets them meet.
class Team {
 public:
  Team(int index, int size, std::atomic<unsigned>* arrived, std::atomic<unsigned>* round)
      : index(index), size(size), arrived_(arrived), round_(round) {}
  const int index, size;

  void barrier() const;  // spins, then yields: regions last milliseconds at most between barriers

  struct Range {
    long begin, end;
  };
  // This member's share of [0, n), in multiples of `grain`.
  Range share(long n, long grain = 1) const {
    const long chunks = (n + grain - 1) / grain;
    const long b = chunks * index / size * grain, e = chunks * (index + 1) / size * grain;
    return {b < n ? b : n, e < n ? e : n};
  }

 private:
  std::atomic<unsigned>*arrived_, *round_;
};

int default_threads();        // cores this process may use, or USCONF_NUM_THREADS
int threads();                // what set_threads chose, else default_threads()
void set_threads(int count);  // >= 1

// Runs body on a team of `size` members, the caller being member 0; returns when all are done.
// A body that throws on any member makes run() throw the first exception after the region ended;
// such a body must not be waiting at a barrier on another member (check inputs before the region).
// When another thread holds the pool the region runs on a team of one instead.
void run(int size, const std::function<void(const Team&)>& body);

}  // namespace usconf::cpu
