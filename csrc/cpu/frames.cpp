#include "frames.h"

#include <algorithm>
#include <atomic>
#include <vector>

namespace usconf::cpu {

namespace {

// Waking a thread and meeting it at some twenty barriers costs 50 us or so: what this many pixels
// take.
constexpr long pixels_per_thread = 64 * 64;
// Beyond this, frames side by side cost more memory than they gain over one frame with all threads.
constexpr std::size_t side_by_side_bytes = std::size_t{1} << 30;

}  // namespace

FrameSchedule::FrameSchedule(const RandomWalkProblem& p, const RandomWalkOptions& o)
    : threads(o.threads) {
  const long pixels = long(p.height) * p.width;
  if (p.frames * pixels < 2 * pixels_per_thread) threads = 1;
  team = static_cast<int>(std::clamp(pixels / pixels_per_thread, 1L, long(threads)));
  alone = threads > 1 ? p.frames / threads * threads : 0;
  bytes = 0;
  if (alone > 0) {
    bytes = threads * FrameSolver::bytes(solver_key(p, o, 1));
    if (bytes > side_by_side_bytes) {
      alone = 0;
      bytes = 0;
    }
  }
  // Solvers of both kinds may be alive at once: given back ones are kept for the next call.
  if (alone < p.frames) bytes += FrameSolver::bytes(solver_key(p, o, team));
}

FrameSolver::Key solver_key(const RandomWalkProblem& p, const RandomWalkOptions& o, int team_size) {
  return {p.height, p.width, p.top, p.bottom, team_size, o.solver, o.double_map};
}

void for_each_frame(const RandomWalkProblem& p, const RandomWalkOptions& o,
                    const std::function<void(FrameSolver&)>& reserve,
                    const std::function<void(const Team&, int, FrameSolver*, void (*)())>& work) {
  const FrameSchedule schedule(p, o);
  if (schedule.alone > 0) {
    std::vector<BorrowedSolver> solvers;
    for (int t = 0; t < schedule.threads; ++t) {
      solvers.emplace_back(solver_key(p, o, 1));
      reserve(*solvers.back());
    }
    std::atomic<int> next{0};
    std::atomic<bool> stop{false};
    run(schedule.threads, [&](const Team& team) {
      Meeting nobody;
      const Team single(0, 1, &nobody);
      try {
        for (int i; !stop && (i = next.fetch_add(1)) < schedule.alone;) {
          const auto checkpoint = team.index == 0 ? o.checkpoint : nullptr;
          if (checkpoint) checkpoint();
          work(single, i, &*solvers[team.index], checkpoint);
        }
      } catch (...) {
        stop = true;
        throw;
      }
    });
  }
  if (schedule.alone == p.frames) return;
  const BorrowedSolver solver(solver_key(p, o, schedule.team));
  reserve(*solver);
  for (int i = schedule.alone; i < p.frames; ++i) {
    if (o.checkpoint) o.checkpoint();
    run(schedule.team, [&](const Team& team) { work(team, i, &*solver, o.checkpoint); });
  }
}

}  // namespace usconf::cpu
