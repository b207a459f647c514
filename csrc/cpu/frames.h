// How the frames of a call are spread over threads.
#pragma once

#include <functional>

#include "../kernels.h"
#include "frame_solver.h"
#include "threads.h"

namespace usconf::cpu {

// With at least as many frames as threads every thread works on frames of its own; what is left
// over, and a single frame, gets all threads together. The result is the same either way.
struct FrameSchedule {
  FrameSchedule(int frames, long pixels, int threads);
  int threads;       // of the call
  int alone;         // frames worked on by one thread each
  int side_by_side;  // solvers needed at once
  int team;          // threads for a frame that is left over
};

FrameSolver::Key solver_key(const RandomWalkProblem& p, const RandomWalkOptions& o, int team_size);

// The checkpoint for work on one frame: only the thread that called may run it, and frames worked
// on by one thread each are checked in between.
inline auto frame_checkpoint(const Team& team, const RandomWalkOptions& o) {
  return team.size > 1 || o.threads == 1 ? o.checkpoint : nullptr;
}

// Calls reserve(solver) before, and work(team, frame index, solver) for all frames, on every member
// of the frame's team.
void for_each_frame(const RandomWalkProblem& p, const RandomWalkOptions& o,
                    const std::function<void(FrameSolver&)>& reserve,
                    const std::function<void(const Team&, int, FrameSolver*)>& work);

}  // namespace usconf::cpu
