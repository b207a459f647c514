#include "frames.h"

#include <algorithm>
#include <atomic>
#include <vector>

namespace usconf::cpu {

namespace {

// Waking a thread and meeting it at some twenty barriers costs 50 us or so: what this many pixels
// take.
constexpr long pixels_per_thread = 64 * 64;

}  // namespace

FrameSchedule::FrameSchedule(int frames, long pixels, int threads) : threads(threads) {
  if (frames * pixels < 2 * pixels_per_thread) this->threads = 1;
  alone = this->threads > 1 ? frames / this->threads * this->threads : 0;
  side_by_side = alone > 0 ? this->threads : 1;
  team = static_cast<int>(std::clamp(pixels / pixels_per_thread, 1L, long(this->threads)));
}

FrameSolver::Key solver_key(const RandomWalkProblem& p, const RandomWalkOptions& o, int team_size) {
  return {p.height, p.width, p.top, p.bottom, team_size, o.solver, o.double_map};
}

void for_each_frame(const RandomWalkProblem& p, const RandomWalkOptions& o,
                    const std::function<void(FrameSolver&)>& reserve,
                    const std::function<void(const Team&, int, FrameSolver*)>& work) {
  const FrameSchedule schedule(p.frames, long(p.height) * p.width, o.threads);
  if (schedule.alone > 0) {
    std::vector<BorrowedSolver> solvers;
    for (int t = 0; t < schedule.threads; ++t) {
      solvers.emplace_back(solver_key(p, o, 1));
      reserve(*solvers.back());
    }
    std::atomic<int> next{0};
    std::atomic<bool> stop{false};
    run(schedule.threads, [&](const Team& team) {
      std::atomic<unsigned> arrived{0}, round{0};
      const Team single(0, 1, &arrived, &round);
      try {
        for (int i; !stop && (i = next.fetch_add(1)) < schedule.alone;) {
          if (team.index == 0 && o.checkpoint) o.checkpoint();
          work(single, i, &*solvers[team.index]);
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
    run(schedule.team, [&](const Team& team) { work(team, i, &*solver); });
  }
}

}  // namespace usconf::cpu
