// How the frames of a call are spread over threads.
#pragma once

#include <functional>

#include "../kernels.h"
#include "frame_solver.h"
#include "threads.h"

namespace usconf::cpu {

// With at least as many frames as threads every thread works on frames of its own, as long as their
// memory together is modest; what is left over, large frames and a single one get all threads
// together. The result is the same either way.
struct FrameSchedule {
  FrameSchedule(const RandomWalkProblem& p, const RandomWalkOptions& o);
  int threads;        // of the call
  int alone;          // frames worked on by one thread each
  int team;           // threads for a frame that all work on
  std::size_t bytes;  // the solvers' memory, at most
};

FrameSolver::Key solver_key(const RandomWalkProblem& p, const RandomWalkOptions& o, int team_size);

// Calls reserve(solver) before, and work(team, frame index, solver) for all frames, on every member
// of the frame's team.
void for_each_frame(const RandomWalkProblem& p, const RandomWalkOptions& o,
                    const std::function<void(FrameSolver&)>& reserve,
                    const std::function<void(const Team&, int, FrameSolver*, void (*)())>& work);

}  // namespace usconf::cpu
