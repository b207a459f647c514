#include "multigrid.h"

#include <cstring>
#include <new>
#include <type_traits>

#include "../solver/reached.h"

namespace usconf::cpu {
namespace {

constexpr int serial_columns =
    96;                     // levels this narrow run on one member: barriers would cost more
constexpr long front = 32;  // zeros before a plane, for reads left of its first row

long half_row(int columns) { return ((columns + 1) / 2 + 31) / 32 * 32 + 16; }
std::size_t plane_floats(int rows, int columns) {
  return front + (rows + 2) * 2 * half_row(columns) + front;
}
std::size_t weight_floats(int rows, int columns) {
  return front + (rows / 2 + 2) * half_row(columns) + front;
}

std::size_t mark_bytes(int rows, int columns) { return (rows + 2) * (columns + 2L); }

// Hands out the planes of all levels one after another; with memory null it only counts.
struct Taker {
  float* memory;
  std::size_t used = 0;

  float* take(std::size_t floats, long first) {
    float* start = memory ? memory + used + first : nullptr;
    used += (floats + 15) / 16 * 16;
    return start;
  }
  float* plane(int rows, int columns) {
    return take(plane_floats(rows, columns), front + 2 * half_row(columns));
  }
  float* weights(int rows, int columns) {
    return take(weight_floats(rows, columns), front + half_row(columns));
  }
};

}  // namespace

std::size_t Multigrid::lay_out(float* memory, int rows, int columns) {
  Taker taker{memory};
  seeds_ = taker.plane(rows, columns);
  direction_ = taker.plane(rows, columns);
  step_ = taker.plane(rows, columns);
  levels_.clear();
  for (;;) {
    const long half = half_row(columns);
    Level level{};
    level.columns = columns;
    level.planes = {rows, half, 2 * half, nullptr, nullptr, nullptr, nullptr, nullptr};
    for (float** plane : {&level.planes.right, &level.planes.below, &level.planes.below_right,
                          &level.planes.below_left, &level.planes.pivot, &level.rhs, &level.x})
      *plane = taker.plane(rows, columns);
    const bool last = columns == 1;
    if (!last) level.weights = {taker.weights(rows, columns), taker.weights(rows, columns)};
    levels_.push_back(level);
    if (last) return taker.used;
    rows = (rows + 1) / 2;
    columns = (columns + 1) / 2;
  }
}

Multigrid::Multigrid(int rows, int columns)
    : memory_(nullptr, release), marks_(mark_bytes(rows, columns)) {
  floats_ = lay_out(nullptr, rows, columns);
  memory_.reset(
      static_cast<float*>(::operator new[](floats_ * sizeof(float), std::align_val_t(64))));
  lay_out(memory_.get(), rows, columns);
}

void Multigrid::release(float* memory) { ::operator delete[](memory, std::align_val_t(64)); }

std::size_t Multigrid::bytes(int rows, int columns) {
  Multigrid counting;
  return counting.lay_out(nullptr, rows, columns) * sizeof(float) + mark_bytes(rows, columns);
}

template <class T>
void Multigrid::prepare(const Team& team, const Couplings<T>& system) {
  const MultigridKernels& kernels = multigrid_kernels();
  const auto zero = team.share(static_cast<long>(floats_), 1024);
  std::memset(memory_.get() + zero.begin, 0, (zero.end - zero.begin) * sizeof(float));
  team.barrier();
  const LevelPlanes& finest = levels_[0].planes;
  const auto rows = team.share(system.rows);
  const auto split = [&](const T* plane, const T* other, float* out) {
    for (long i = rows.begin; i < rows.end; ++i) {
      const T* add = other ? other + i * system.ld : nullptr;
      if constexpr (std::is_same_v<T, float>)
        kernels.split_float(plane + i * system.ld, add, system.columns, finest.half,
                            out + i * finest.ld);
      else
        kernels.split_double(plane + i * system.ld, add, system.columns, finest.half,
                             out + i * finest.ld);
    }
  };
  split(system.right, nullptr, finest.right);
  split(system.below, nullptr, finest.below);
  split(system.below_right, nullptr, finest.below_right);
  split(system.below_left, nullptr, finest.below_left);
  split(system.source, system.sink, seeds_);
  if (team.index == 0) unreached_ = mark_reached(system, marks_.data());
  team.barrier();
  // Pieces without seeds become dummies. Coarse pixels of neighbouring pieces may be mixed by the
  // interpolation, which costs iterations but would drive a piece away that nothing holds.
  for (long i = rows.begin; unreached_ && i < rows.end; ++i)
    for (long c = 0; c < system.columns; ++c) {
      if (marks_[(i + 1) * (system.columns + 2) + c + 1]) continue;
      const long o = i * finest.ld + (c & 1) * finest.half + c / 2;
      finest.right[o] = finest.below[o] = finest.below_right[o] = finest.below_left[o] = 0;
    }
  team.barrier();
  for (std::size_t level = 0; level < levels_.size(); ++level) {
    // The factor of a level's columns, then the level below.
    const Level& fine = levels_[level];
    float* seeds = level == 0 ? seeds_ : fine.x;
    const auto columns = team.share(fine.planes.half - 16, 32);
    for (int colour = 0; colour < 2; ++colour)
      kernels.eliminate(fine.planes, seeds, colour, columns.begin, columns.end);
    team.barrier();
    if (level + 1 < levels_.size()) coarsen(team, fine, seeds, levels_[level + 1]);
  }
  for (float* plane : {levels_[0].rhs, levels_[0].x, direction_, step_})
    clear(team, plane, levels_[0]);
  team.barrier();
}

template void Multigrid::prepare(const Team&, const Couplings<float>&);
template void Multigrid::prepare(const Team&, const Couplings<double>&);

// A plane of the finest level's size, as this level would lay it out.
void Multigrid::clear(const Team& team, float* finest_plane, const Level& level) const {
  const Level& top = levels_[0];
  const long lead = front + top.planes.ld;
  const auto part = team.share(lead + (level.planes.rows + 1) * level.planes.ld + front, 1024);
  std::memset(finest_plane - lead + part.begin, 0, (part.end - part.begin) * sizeof(float));
}

void Multigrid::coarsen(const Team& team, const Level& fine, const float* seeds,
                        const Level& coarse) {
  const MultigridKernels& kernels = multigrid_kernels();
  const LevelPlanes& a = fine.planes;
  // The four vectors of the iteration are not in use yet: scratch for eight half planes.
  float* const scratch[4] = {levels_[0].rhs, levels_[0].x, direction_, step_};
  for (float* plane : scratch) clear(team, plane, fine);
  team.barrier();
  float *left = scratch[0] + a.half, *right = scratch[1] + a.half, *lost = scratch[2] + a.half;
  const EvenColumns even{a.rows,     a.half,     a.ld,       scratch[0],
                         scratch[1], scratch[2], scratch[3], scratch[3] + a.half};
  const auto rows = team.share(a.rows);
  for (long i = rows.begin; i < rows.end; ++i) kernels.side_sums(a, left, right, i);
  team.barrier();
  const auto columns = team.share(a.half - 16, 32);
  kernels.solve_columns(a, 1, false, left - a.half, left - a.half, columns.begin, columns.end);
  kernels.solve_columns(a, 1, false, right - a.half, right - a.half, columns.begin, columns.end);
  kernels.solve_columns(a, 1, false, seeds, lost - a.half, columns.begin, columns.end);
  team.barrier();
  for (long i = rows.begin; i < rows.end; ++i)
    kernels.coarsen_across(a, seeds, left, right, lost, even, i);
  team.barrier();
  const auto pairs = team.share(a.rows / 2);
  for (long pair = pairs.begin; pair < pairs.end; ++pair)
    kernels.weigh_rows(even, fine.weights, lost, pair);
  team.barrier();
  const auto coarse_rows = team.share(coarse.planes.rows);
  for (long i = coarse_rows.begin; i < coarse_rows.end; ++i)
    kernels.coarsen_down(even, fine.weights, lost, coarse.planes, coarse.x, i);
  team.barrier();
}

void Multigrid::cycle(const Team& team, std::size_t level) {
  const Level& fine = levels_[level];
  if (team.size > 1 && fine.columns <= serial_columns) {
    if (team.index == 0) cycle(Team(0, 1, nullptr), level);
    team.barrier();
    return;
  }
  const MultigridKernels& kernels = multigrid_kernels();
  const long width = fine.planes.half - 16;
  const auto part = team.share(width, width >= 64 * team.size ? 64 : 32);
  const auto solve = [&](int colour, bool lateral) {
    kernels.solve_columns(fine.planes, colour, lateral, fine.rhs, fine.x, part.begin, part.end);
    team.barrier();
  };
  solve(0, false);
  if (level + 1 == levels_.size()) return;  // a single column: solved
  solve(1, true);
  const Level& coarse = levels_[level + 1];
  kernels.restrict_even(fine.planes, fine.weights, fine.x, coarse.planes, coarse.rhs, part.begin,
                        part.end);
  team.barrier();
  cycle(team, level + 1);
  kernels.correct_even(fine.planes, fine.weights, coarse.planes, coarse.x, fine.x, part.begin,
                       part.end);
  team.barrier();
  solve(1, true);
  solve(0, true);
}

}  // namespace usconf::cpu
