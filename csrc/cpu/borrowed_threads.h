// torch's OpenMP threads, for regions of ours: they wait for torch's next operator by spinning, for
// milliseconds, and would hold the cores that threads of our own need.
#pragma once

namespace usconf::cpu {

// Runs region(context, index, size) on `size` of them or fewer, the caller being index 0. False,
// and nothing was run, where there are none: torch is not loaded, has no OpenMP or is told to use
// one thread, or the process was forked and has none of its parent's threads.
bool run_on_borrowed(int size, void (*region)(void* context, int index, int size), void* context);

}  // namespace usconf::cpu
