#include "iterative.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <type_traits>

namespace usconf::cpu {
namespace {

constexpr int limit = 1000;  // real frames need 50 to 100, the worst known (gamma = 0) 545

// What conjugate_gradients works on. Rows are shared among the members; sums are taken per row and
// then over rows by every member alike, so that any team gets the same bits.
template <class T>
class Iteration {
 public:
  Iteration(const Team& team, const NaturalSystem<T>& system, T* x, IterativeWorkspace& workspace,
            void (*checkpoint)())
      : team_(team),
        system_(system),
        x_(x),
        workspace_(workspace),
        multigrid_(workspace.multigrid),
        checkpoint_(checkpoint),
        rows_(team.share(system.rows)),
        ld_(multigrid_.finest().ld) {}

  double precondition() {
    multigrid_.cycle(team_);
    return sum_rows([&](long i) {
      return kernels_.dot(multigrid_.residual() + i * ld_, multigrid_.correction() + i * ld_, ld_);
    });
  }

  void direction(double beta) {
    const long o = rows_.begin * ld_;
    kernels_.direction(multigrid_.correction() + o, static_cast<float>(beta),
                       multigrid_.direction() + o, length());
    team_.barrier();
  }

  // q takes the place of z, which has served once p is made.
  double apply() {
    return sum_rows([&](long i) {
      return kernels_.apply(multigrid_.finest(), multigrid_.seeds(), multigrid_.direction(),
                            multigrid_.correction(), static_cast<int>(i));
    });
  }

  void advance(double alpha) {
    const long o = rows_.begin * ld_;
    kernels_.advance(multigrid_.direction() + o, multigrid_.correction() + o,
                     static_cast<float>(alpha), multigrid_.step() + o, multigrid_.residual() + o,
                     length());
    team_.barrier();
  }

  double settle() {
    double* const change = workspace_.parts.data() + system_.rows;
    double* const size = change + system_.rows;
    for (long i = rows_.begin; i < rows_.end; ++i) {
      size[i] = 0;
      float* dx = multigrid_.step() + i * ld_;
      if constexpr (std::is_same_v<T, float>)
        change[i] =
            kernels_.settle_float(dx, system_.columns, ld_ / 2, x_ + i * system_.ld_x, &size[i]);
      else
        change[i] =
            kernels_.settle_double(dx, system_.columns, ld_ / 2, x_ + i * system_.ld_x, &size[i]);
    }
    team_.barrier();
    const double moved = *std::max_element(change, change + system_.rows);
    const double largest = *std::max_element(size, size + system_.rows);
    residual();
    return system_.rhs && moved > 0 ? moved / largest : moved;  // a map's unit is 1
  }

  void residual() {
    for (long i = rows_.begin; i < rows_.end; ++i) {
      const int row = static_cast<int>(i);
      if constexpr (std::is_same_v<T, float>)
        kernels_.residual_float(system_, x_, multigrid_.step(), row, ld_ / 2,
                                multigrid_.residual());
      else
        kernels_.residual_double(system_, x_, multigrid_.step(), row, ld_ / 2,
                                 multigrid_.residual());
    }
    team_.barrier();
  }

  bool interrupted() {
    if (!checkpoint_) return false;
    if (team_.index == 0 && due()) {
      try {
        checkpoint_();
      } catch (...) {
        workspace_.stop = std::current_exception();
      }
    }
    team_.barrier();
    return static_cast<bool>(workspace_.stop);
  }

  // The checkpoint waits for Python's lock, and the team with it: 20 times a second is enough.
  bool due() {
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < std::chrono::milliseconds(50)) return false;
    asked_ = now;
    return true;
  }

 private:
  long length() const { return (rows_.end - rows_.begin) * ld_; }

  template <class Part>
  double sum_rows(Part&& part) {
    for (long i = rows_.begin; i < rows_.end; ++i) workspace_.parts[i] = part(i);
    team_.barrier();
    double sum = 0;
    for (int i = 0; i < system_.rows; ++i) sum += workspace_.parts[i];
    team_.barrier();  // before a member that is ahead writes the next sum's parts
    return sum;
  }

  const Team& team_;
  const NaturalSystem<T> system_;
  T* const x_;
  IterativeWorkspace& workspace_;
  Multigrid& multigrid_;
  void (*const checkpoint_)();
  const Team::Range rows_;
  const long ld_;
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
  const MultigridKernels& kernels_ = multigrid_kernels();
};

}  // namespace

std::size_t iterative_bytes(int rows, int columns) {
  return Multigrid::bytes(rows, columns) + 3 * sizeof(double) * rows;
}

template <class T>
IterativeResult solve_iterative(const Team& team, const Couplings<T>& a, const T* rhs, T* x,
                                long ld_x, double tolerance, IterativeWorkspace& workspace,
                                void (*checkpoint)()) {
  if (team.index == 0) workspace.stop = nullptr;
  workspace.multigrid.prepare(team, a);
  const NaturalSystem<T> system{a.rows,        a.columns,    a.ld,     ld_x,   a.right, a.below,
                                a.below_right, a.below_left, a.source, a.sink, rhs};
  Iteration<T> iteration(team, system, x, workspace, checkpoint);
  iteration.residual();
  const IterativeResult result = conjugate_gradients(iteration, tolerance, limit);
  if (workspace.stop) {
    if (team.index == 0) std::rethrow_exception(workspace.stop);
    throw TeamFailed();
  }
  if (!result.converged) {
    char text[200];
    std::snprintf(text, sizeof text,
                  "the iterative solver did not converge: the map may be wrong by %.0e after %d "
                  "iterations; pass solver=\"direct\"",
                  result.correction, result.iterations);
    throw std::runtime_error(text);
  }
  return result;
}

template IterativeResult solve_iterative(const Team&, const Couplings<float>&, const float*, float*,
                                         long, double, IterativeWorkspace&, void (*)());
template IterativeResult solve_iterative(const Team&, const Couplings<double>&, const double*,
                                         double*, long, double, IterativeWorkspace&, void (*)());

}  // namespace usconf::cpu
