#include "borrowed_threads.h"

#if defined(__linux__)

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

#include "threads.h"

namespace usconf::cpu {
namespace {

// What compilers call for `#pragma omp parallel`; LLVM's and Intel's runtimes have it as well.
struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned threads, unsigned flags);
  int (*most)();  // threads of a region that does not say how many
  int (*index)();
  int (*size)();
  pid_t owner;
};

// Forked without exec: whoever loaded torch may have used its threads before the fork, and an
// OpenMP runtime then waits for them for ever.
bool forked() {
  std::FILE* file = std::fopen("/proc/self/stat", "re");
  if (!file) return true;
  char text[1024];
  const std::size_t n = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  text[n] = 0;
  // pid (name) state, five numbers, flags: PF_FORKNOEXEC of the kernel's sched.h.
  const char* behind = std::strrchr(text, ')');
  unsigned long flags = 0;
  if (!behind || std::sscanf(behind, ") %*c %*d %*d %*d %*d %*d %lu", &flags) != 1) return true;
  return flags & 0x40;
}

// Never closed: the runtime's threads live as long as the process.
const OpenMp* runtime_of(const char* library) {
  void* handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  if (!handle) return nullptr;
  // A handle finds symbols in what the object depends on too: in the very runtime that it uses.
  OpenMp found{};
  found.owner = getpid();
  *reinterpret_cast<void**>(&found.parallel) = dlsym(handle, "GOMP_parallel");
  *reinterpret_cast<void**>(&found.most) = dlsym(handle, "omp_get_max_threads");
  *reinterpret_cast<void**>(&found.index) = dlsym(handle, "omp_get_thread_num");
  *reinterpret_cast<void**>(&found.size) = dlsym(handle, "omp_get_num_threads");
  if (found.parallel && found.most && found.index && found.size) return new OpenMp(found);
  dlclose(handle);
  return nullptr;
}

// How often the process has loaded objects, and, when asked for, where torch's lies.
struct Objects {
  unsigned long long loaded = 0;
  bool search = false;
  std::string torch;

  static int look(dl_phdr_info* info, std::size_t, void* of) {
    Objects& o = *static_cast<Objects*>(of);
    o.loaded = info->dlpi_adds;
    if (!o.search) return 1;
    const char* slash = std::strrchr(info->dlpi_name, '/');
    if (!slash || std::strcmp(slash, "/libtorch_cpu.so") != 0) return 0;
    o.torch = info->dlpi_name;
    return 1;
  }
};

std::atomic<bool> allowed{false};
std::atomic<const OpenMp*> known{nullptr};
std::atomic<unsigned long long> searched{0};  // with so many objects loaded
ForkMutex mutex;

const OpenMp* find() {
  if (const OpenMp* runtime = known.load(std::memory_order_acquire)) return runtime;
  Objects now;
  dl_iterate_phdr(Objects::look, &now);
  if (now.loaded == searched.load(std::memory_order_relaxed)) return nullptr;
  const std::lock_guard<ForkMutex> lock(mutex);
  if (const OpenMp* runtime = known.load(std::memory_order_acquire)) return runtime;
  now.search = true;
  dl_iterate_phdr(Objects::look, &now);
  const OpenMp* runtime = now.torch.empty() || forked() ? nullptr : runtime_of(now.torch.c_str());
  known.store(runtime, std::memory_order_release);
  searched.store(now.loaded, std::memory_order_relaxed);
  return runtime;
}

struct Region {
  const OpenMp* runtime;
  void (*body)(void*, int, int);
  void* context;
  int wanted;
};

void enter(void* given) {
  const Region& r = *static_cast<const Region*>(given);
  const int index = r.runtime->index(), size = std::min(r.wanted, r.runtime->size());
  if (index < size) r.body(r.context, index, size);
}

}  // namespace

void borrow_threads() { allowed.store(true, std::memory_order_relaxed); }

bool run_on_borrowed(int size, void (*region)(void*, int, int), void* context) {
  const OpenMp* runtime = allowed.load(std::memory_order_relaxed) ? find() : nullptr;
  if (!runtime || runtime->owner != getpid() || runtime->most() == 1) return false;
  Region r{runtime, region, context, size};
  // As many as torch's own regions have, and those that are not wanted leave at once: a runtime
  // ends threads when a region has fewer, and starts them again for the next one.
  runtime->parallel(enter, &r, 0, 0);
  return true;
}

}  // namespace usconf::cpu

#else

namespace usconf::cpu {

void borrow_threads() {}
bool run_on_borrowed(int, void (*)(void*, int, int), void*) { return false; }

}  // namespace usconf::cpu

#endif
