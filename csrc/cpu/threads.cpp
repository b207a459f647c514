#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "borrowed_threads.h"

namespace usconf::cpu {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// A worker looks for the next region this long before it sleeps: waking a sleeper takes 20 us, as
// long as resampling a frame, and small calls tend to follow one another.
constexpr auto alertness = std::chrono::microseconds(50);

// Workers sleep on a condition variable between regions. Never destroyed: threads of a library
// cannot be joined safely while the interpreter goes down, and after fork the child has none of
// them.
struct Pool {
  const pid_t owner = getpid();
  std::mutex busy;  // held by the caller for the length of a region
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;
  const std::function<void(const Team&)>* body = nullptr;
  int size = 0;
  std::atomic<unsigned> generation{0};
  std::atomic<int> running{0};
  Meeting meeting;
  std::exception_ptr failure;
  std::mutex failure_mutex;

  void member(int index, int members) {
    try {
      (*body)(Team(index, members, &meeting));
    } catch (const TeamFailed&) {
    } catch (...) {
      std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      meeting.failed.store(true);
    }
  }

  // Starts workers for a team of `size`, as far as the system gives them; the size that it can
  // have.
  int grow(int size) {
    while (static_cast<int>(workers.size()) < size - 1) {
      const int index = static_cast<int>(workers.size()) + 1;
      try {
        workers.emplace_back([this, index] { work(index); });
      } catch (const std::system_error&) {
        return index;
      }
      workers.back().detach();
    }
    return size;
  }

  void linger(unsigned seen) const {
    const auto end = std::chrono::steady_clock::now() + alertness;
    do {
      for (int i = 0; i < 16; ++i, relax())
        if (generation.load(std::memory_order_relaxed) != seen) return;
    } while (std::chrono::steady_clock::now() < end);
  }

  void run_on_own(int wanted) {
    const int members = grow(wanted);
    running.store(members - 1, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex);
      size = members;
      ++generation;
    }
    wake.notify_all();
    member(0, members);
    for (int spins = 0; running.load(std::memory_order_acquire) > 0;)
      if (++spins < 4000)
        relax();
      else
        sched_yield();
  }

  void work(int index) {
    unsigned seen = 0;
    for (;;) {
      linger(seen);
      int members;
      {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return generation != seen && index < size; });
        seen = generation;
        members = size;
      }
      member(index, members);
      running.fetch_sub(1, std::memory_order_release);
    }
  }
};

std::atomic<Pool*> current{nullptr};
std::atomic<int> chosen{0};

Pool& pool() {
  Pool* p = current.load();
  if (p && p->owner == getpid()) return *p;
  // First use, or the first use in a forked child: the parent's pool has no threads here and its
  // locks may be held for ever, so it is left alone.
  Pool* fresh = new Pool;
  if (!current.compare_exchange_strong(p, fresh)) {
    delete fresh;
    return *current.load();
  }
  return *fresh;
}

}  // namespace

void Team::barrier() const {
  if (size == 1) return;
  const unsigned round = meeting_->round.load(std::memory_order_relaxed);
  if (meeting_->arrived.fetch_add(1, std::memory_order_acq_rel) + 1 ==
      static_cast<unsigned>(size)) {
    meeting_->arrived.store(0, std::memory_order_relaxed);
    meeting_->round.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; meeting_->round.load(std::memory_order_acquire) == round;) {
    check();
    if (++spins < 4000)
      relax();
    else
      sched_yield();
  }
}

int default_threads() {
  static const int count = [] {
    if (const char* text = std::getenv("USCONF_NUM_THREADS")) {
      const int n = std::atoi(text);
      if (n >= 1) return n;
    }
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    const int n = static_cast<int>(std::thread::hardware_concurrency());
    return n > 0 ? n : 1;
  }();
  return count;
}

int threads() {
  const int n = chosen.load();
  return n > 0 ? n : default_threads();
}

void set_threads(int count) { chosen.store(count); }

void run(int size, const std::function<void(const Team&)>& body) {
  Meeting alone;
  if (size <= 1) return body(Team(0, 1, &alone));
  Pool& p = pool();
  std::unique_lock<std::mutex> busy(p.busy, std::try_to_lock);
  if (!busy.owns_lock()) return body(Team(0, 1, &alone));
  p.failure = nullptr;
  p.meeting.arrived.store(0, std::memory_order_relaxed);
  p.meeting.failed.store(false, std::memory_order_relaxed);
  p.body = &body;
  const auto member = [](void* of, int index, int members) {
    static_cast<Pool*>(of)->member(index, members);
  };
  if (!run_on_borrowed(size, member, &p)) p.run_on_own(size);
  if (p.failure) std::rethrow_exception(p.failure);
}

namespace {

std::vector<ForkMutex*>& fork_mutexes() {
  static std::vector<ForkMutex*> list;
  return list;
}

}  // namespace

// Registered during static initialisation; the handlers are the process's for good.
ForkMutex::ForkMutex() {
  if (fork_mutexes().empty())
    pthread_atfork(
        [] {
          for (ForkMutex* m : fork_mutexes()) m->lock();
        },
        [] {
          for (ForkMutex* m : fork_mutexes()) m->unlock();
        },
        [] {
          for (ForkMutex* m : fork_mutexes()) m->unlock();
        });
  fork_mutexes().push_back(this);
}

}  // namespace usconf::cpu
