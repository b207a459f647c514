// The random walk's operator on the CPU: frames to maps.
#include <algorithm>
#include <cstdint>
#include <mutex>

#include "../kernels.h"
#include "assembly.h"
#include "direct.h"
#include "frame_solver.h"
#include "frames.h"
#include "memory.h"
#include "scan_conversion.h"
#include "threads.h"

namespace usconf::cpu {
namespace {

// The map of one frame: seeds exactly, the rest clamped (rounding passes 0 and 1 by 2.4e-7 at
// most).
template <class T>
void write_map(const Team& team, const FrameView& frame, const FrameSolver& solver, T* map) {
  const RandomWalkProblem& p = frame.problem;
  const auto rows = team.share(p.height);
  for (long r = rows.begin; r < rows.end; ++r) {
    T* out = map + r * p.width;
    const std::uint8_t* label = frame.label_row(static_cast<int>(r));
    const auto seed = [&](int c) {
      return label[c] == static_cast<std::uint8_t>(Label::source) ? T(1) : T(0);
    };
    if (r < p.top || r >= p.bottom) {
      for (int c = 0; c < p.width; ++c) out[c] = seed(c);
      continue;
    }
    const double* x = solver.x() + (r - p.top) * solver.ld();
    for (int c = 0; c < p.width; ++c) out[c] = static_cast<T>(std::min(std::max(x[c], 0.0), 1.0));
    if (frame.all_free(static_cast<int>(r))) continue;
    for (int c = 0; c < p.width; ++c)
      if (label[c] != static_cast<std::uint8_t>(Label::free)) out[c] = seed(c);
  }
  team.barrier();
}

}  // namespace

std::size_t random_walk_factor_bytes(const RandomWalkProblem& p) {
  if (p.bottom <= p.top || p.width == 0) return 0;
  return plan_for(p.bottom - p.top, p.width)->factor_size * sizeof(float);
}

std::size_t random_walk_memory(const RandomWalkProblem& p, const RandomWalkOptions& o) {
  if (p.bottom <= p.top || p.width == 0 || p.frames == 0) return 0;
  return FrameSchedule(p, o).bytes;
}

RandomWalkReport random_walk(const RandomWalkProblem& p, const RandomWalkOptions& o, void* map,
                             void* factor, void*) {
  RandomWalkReport worst{0, 0};
  std::mutex mutex;
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  const std::size_t floats = factor ? random_walk_factor_bytes(p) / sizeof(float) : 0;
  const auto reserve = [&](FrameSolver& solver) {
    if (!factor) solver.reserve_factor();
  };
  for_each_frame(p, o, reserve, [&](const Team& team, int i, FrameSolver* solver, auto checkpoint) {
    const FrameView frame(p, i);
    float* kept = factor ? static_cast<float*>(factor) + i * floats : nullptr;
    solver->prepare(team, frame, kept);
    const RandomWalkReport report = solver->solve_map(team, checkpoint);
    if (o.double_map)
      write_map(team, frame, *solver, static_cast<double*>(map) + i * pixels);
    else
      write_map(team, frame, *solver, static_cast<float*>(map) + i * pixels);
    if (team.index != 0) return;
    const std::lock_guard<std::mutex> lock(mutex);
    worst.steps = std::max(worst.steps, report.steps);
    worst.correction = std::max(worst.correction, report.correction);
  });
  return worst;
}

void random_walk_edges(const RandomWalkProblem& p, const RandomWalkOptions& o, double* edges,
                       void*) {
  Assembly assembly(p.height, p.width, o.threads);
  for (int i = 0; i < p.frames; ++i) {
    const FrameView frame(p, i);
    double* out = edges + static_cast<std::size_t>(i) * 4 * p.height * p.width;
    run(o.threads, [&](const Team& team) {
      assembly.prepare(team, frame, nullptr);
      assembly.edges(team, frame, out);
    });
  }
}

void clear_cache() {
  forget_solvers();
  forget_blocks();
  forget_plans();
  forget_scan_plans();
}

}  // namespace usconf::cpu
