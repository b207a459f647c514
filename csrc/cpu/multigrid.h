// Multigrid for the random walk's system, as a preconditioner: full coarsening with interpolation
// from the operator, P^T A P, one zebra sweep down the columns before and after (a symmetric
// cycle).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../solver/couplings.h"
#include "multigrid_kernels.h"
#include "threads.h"

namespace usconf::cpu {

class Multigrid {
 public:
  Multigrid(int rows, int columns);
  static std::size_t bytes(int rows, int columns);

  // Called by all members of a team. Takes the couplings over in its own layout and builds all
  // levels; afterwards residual, correction, direction and step are 0.
  template <class T>
  void prepare(const Team&, const Couplings<T>&);

  // correction() = M residual(), called by all members. Leaves the residual alone.
  void cycle(const Team& team) { cycle(team, 0); }

  // The finest level in split layout (see multigrid_kernels.h), its source + sink couplings, and
  // planes for the iteration around the cycle.
  const LevelPlanes& finest() const { return levels_[0].planes; }
  const float* seeds() const { return seeds_; }
  float* residual() const { return levels_[0].rhs; }
  float* correction() const { return levels_[0].x; }
  float* direction() const { return direction_; }
  float* step() const { return step_; }

 private:
  struct Level {
    LevelPlanes planes;
    int columns;
    float *rhs, *x;      // x holds the level's couplings to the seeds until the first cycle
    RowWeights weights;  // to the level below
  };

  Multigrid() : memory_(nullptr, release) {}
  std::size_t lay_out(float* memory, int rows, int columns);
  static void release(float* memory);
  void clear(const Team&, float* finest_plane, const Level&) const;
  void coarsen(const Team&, const Level& fine, const float* seeds, const Level& coarse);
  void cycle(const Team&, std::size_t level);

  std::unique_ptr<float[], void (*)(float*)> memory_;
  std::size_t floats_ = 0;
  std::vector<std::uint8_t> marks_;  // see mark_reached
  bool unreached_ = false;
  std::vector<Level> levels_;
  float *seeds_ = nullptr, *direction_ = nullptr, *step_ = nullptr;
};

}  // namespace usconf::cpu
