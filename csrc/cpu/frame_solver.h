// One frame's system solved to a stated accuracy: assembly, elimination, refinement. Shared by the
// map and its derivative.
#pragma once

#include <memory>
#include <vector>

#include "../kernels.h"
#include "assembly.h"
#include "direct.h"
#include "iterative.h"
#include "memory.h"
#include "threads.h"

namespace usconf::cpu {

// Working memory for frames of one shape; taken from a bounded store and given back to it.
class FrameSolver {
 public:
  struct Key {
    int height, width, top, bottom, threads;
    Solver solver;
    bool exact;  // double weights in the residual
    bool operator==(const Key&) const = default;
  };
  explicit FrameSolver(const Key& key);

  // All functions are called by every member of one team.

  // Assembles the frame's system and eliminates it. factor null: into own memory (reserve_factor
  // first).
  void prepare(const Team& team, const FrameView& frame, float* factor);
  // The same for derivatives; a factor that is given is the frame's and is only read.
  void prepare_adjoint(const Team& team, const FrameView& frame, float* factor);
  // The checkpoint is called by member 0 now and then, by the iterative solver only (null: never).
  // x() = the map on the rectangle.
  RandomWalkReport solve_map(const Team& team, void (*checkpoint)());
  // x() = solution for the right-hand side in b() (scaled to largest value 1 inside).
  RandomWalkReport solve_adjoint(const Team& team, void (*checkpoint)());

  const Assembly& assembly() const { return assembly_; }
  Assembly& assembly() { return assembly_; }
  double* x() const { return x_; }
  // Memory that not every use needs: before the team starts, because a team cannot fail half-way.
  void reserve_factor() { own_factor_.reserve(factor_floats() * sizeof(float)); }
  void reserve_b() { b_.reserve(static_cast<std::size_t>(ld_) * (rows_ + 3) * sizeof(double)); }
  // Right-hand side of the adjoint, filled by the caller.
  double* b() const { return b_.as<double>() + origin_; }
  long ld() const { return ld_; }
  std::size_t factor_floats() const { return plan_ ? plan_->factor_size : 0; }
  const Key& key() const { return key_; }
  std::size_t held() const;  // bytes
  // Bytes a solver takes, its own factor included.
  static std::size_t bytes(const Key& key);
  static std::size_t bytes(const Key& key, const Plan& plan);

 private:
  static std::size_t planes_bytes(const Key& key);
  void set_up(const Team& team, const FrameView& frame, float* factor, bool known);
  RandomWalkReport refine(const Team& team, bool map, bool forwarded, double tolerance);
  RandomWalkReport iterate(const Team& team, bool map, void (*checkpoint)());
  void residual(const Pixels& columns, int row, bool map);
  void clear_border(const Team& team);
  double correct(const Team& team);
  double largest(const Team& team, double mine);

  Key key_;
  int rows_;
  long ld_, origin_;
  Assembly assembly_;
  CouplingStore<float> couplings_;
  CouplingStore<double> exact_;
  std::shared_ptr<const Plan> plan_;
  std::unique_ptr<DirectSolver> direct_;
  std::unique_ptr<IterativeWorkspace> iterative_;
  Buffer own_factor_, own_x_, b_, r_, single_;
  double* x_ = nullptr;  // the rectangle's first pixel
  float* factor_ = nullptr;
  std::size_t fixed_bytes_ = 0;
  struct alignas(64) Value {
    double value;
  };
  std::vector<Value> partial_;
};

// Takes a solver for the key from the store, or makes one; its destructor gives it back.
class BorrowedSolver {
 public:
  explicit BorrowedSolver(const FrameSolver::Key& key);
  ~BorrowedSolver();
  BorrowedSolver(BorrowedSolver&&) = default;
  FrameSolver* operator->() const { return solver_.get(); }
  FrameSolver& operator*() const { return *solver_; }

 private:
  std::unique_ptr<FrameSolver> solver_;
};

void forget_solvers();

}  // namespace usconf::cpu
