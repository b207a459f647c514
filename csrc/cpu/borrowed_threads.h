// torch's OpenMP threads, for regions of ours: they wait for torch's next operator by spinning, for
// milliseconds, and would hold the cores that threads of our own need.
#pragma once

namespace usconf::cpu {

// From now on they may be taken. Before, who uses torch for nothing but its import keeps forking
// freely: a child of a process whose OpenMP threads have run hangs in its first operator of torch.
void borrow_threads();

// Runs region(context, index, size) on `size` of them or fewer, the caller being index 0. False,
// and nothing was run, where there are none: nobody asked for them, torch is not loaded, has no
// OpenMP or is told to use one thread, or the process was forked and has none of its parent's
// threads.
bool run_on_borrowed(int size, void (*region)(void* context, int index, int size), void* context);

}  // namespace usconf::cpu
