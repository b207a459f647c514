// How the frames of a call whose operator works on one frame at a time are spread over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "threads.h"

namespace usconf::cpu {

struct FrameTeams {
  int frames;
  int threads;  // of the call
  int size;     // threads that pay for one frame
};

// Calls work(team, frame index, that team's own make()) for all frames, on every member of the
// frame's team. With at least as many frames as threads every thread works on frames of its own;
// what is left over gets teams of `size`.
template <class Make, class Work>
void for_each_frame_of(const FrameTeams& t, Make make, Work work) {
  const int alone = t.threads > 1 ? t.frames / t.threads * t.threads : 0;
  if (alone > 0) {
    std::vector<decltype(make())> states;
    for (int i = 0; i < t.threads; ++i) states.push_back(make());
    std::atomic<int> next{0};
    std::atomic<bool> stop{false};
    run(t.threads, [&](const Team& team) {
      Meeting nobody;
      const Team single(0, 1, &nobody);
      try {
        for (int i; !stop && (i = next.fetch_add(1)) < alone;) work(single, i, *states[team.index]);
      } catch (...) {
        stop = true;
        throw;
      }
    });
  }
  if (alone == t.frames) return;
  const auto state = make();
  for (int i = alone; i < t.frames; ++i)
    run(t.size, [&](const Team& team) { work(team, i, *state); });
}

}  // namespace usconf::cpu
