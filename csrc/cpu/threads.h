// The package's own thread pool: one team of threads runs one region together (SPMD).
#pragma once

#include <atomic>
#include <functional>
#include <mutex>

namespace usconf::cpu {

// Where the members of a team meet.
struct Meeting {
  std::atomic<unsigned> arrived{0}, round{0};
  std::atomic<bool> failed{false};  // a member threw: nobody may wait for it
};

// Thrown by barrier() and check() on the members of a team whose other member threw.
struct TeamFailed {};

// A member's view of its team. Every member runs the same body; barrier() lets them meet.
class Team {
 public:
  Team(int index, int size, Meeting* meeting) : index(index), size(size), meeting_(meeting) {}
  const int index, size;

  void barrier() const;  // spins, then yields: regions last milliseconds at most between barriers
  void check() const {   // for members that wait by themselves
    if (meeting_->failed.load(std::memory_order_relaxed)) throw TeamFailed();
  }

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
  Meeting* meeting_;
};

int default_threads();        // cores this process may use, or USCONF_NUM_THREADS
int threads();                // what set_threads chose, else default_threads()
void set_threads(int count);  // >= 1

// Runs body on a team of `size` members, the caller being member 0; returns when all are done, or
// throws what the first member that failed threw; the others leave at their next barrier. Where the
// system starts no more threads, or another thread holds the pool, the team is smaller.
void run(int size, const std::function<void(const Team&)>& body);

// A mutex that a forked child finds unlocked. None of them may be held while another is taken.
class ForkMutex {
 public:
  ForkMutex();
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

}  // namespace usconf::cpu
