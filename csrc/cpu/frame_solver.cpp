#include "frame_solver.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <list>
#include <mutex>
#include <stdexcept>

#include "flux_kernels.h"

namespace usconf::cpu {
namespace {

// A float elimination errs by 1e-6 or so at the defaults, by more for extreme parameters. The error
// left after a correction was at most 0.41 of it in 180 trials
// (docs/decisions/2026-11-22-direct-solver.md), so a correction of this size leaves less than 1e-6.
constexpr double float_correction = 2.4e-6;
constexpr double double_correction = 1e-11;  // leaves about 1e-13
constexpr int most_steps = 12;
constexpr double iterative_float = 1e-6, iterative_double = 1e-9;  // bounds of the estimated error
// Solvers beyond an eighth of the machine's memory in all, or this number, are not kept between
// calls: touching a gigabyte for the first time costs more than the elimination in it.
std::size_t store_bytes() {
  static const std::size_t bytes =
      std::size_t(sysconf(_SC_PHYS_PAGES)) * std::size_t(sysconf(_SC_PAGE_SIZE)) / 8;
  return bytes;
}
constexpr int store_count = 32;

ForkMutex store_mutex;
std::list<std::unique_ptr<FrameSolver>> store;  // given back last first

}  // namespace

FrameSolver::FrameSolver(const Key& key)
    : key_(key), rows_(key.bottom - key.top), assembly_(key.height, key.width, key.threads) {
  const int w = key.width;
  couplings_.resize(rows_, w);
  ld_ = couplings_.get().ld;
  origin_ = ld_ + block;
  if (key.exact) exact_.resize(rows_, w);
  const std::size_t plane = static_cast<std::size_t>(ld_) * (rows_ + 3);
  partial_.resize(static_cast<std::size_t>(key.threads));
  r_.reserve(plane * sizeof(float));
  if (key.solver == Solver::direct) {
    plan_ = plan_for(rows_, w);
    direct_ = std::make_unique<DirectSolver>(plan_, key.threads, plane * sizeof(double));
    x_ = direct_->spare<double>() + origin_;
    fixed_bytes_ = bytes(key, *plan_) - plan_->factor_size * sizeof(float);
  } else {
    iterative_ = std::make_unique<IterativeWorkspace>(rows_, w);
    own_x_.reserve(plane * sizeof(double));
    x_ = own_x_.as<double>() + origin_;
    if (!key.exact) single_.reserve(plane * sizeof(float));
    fixed_bytes_ = bytes(key);
  }
}

std::size_t FrameSolver::bytes(const Key& key) {
  const int rows = key.bottom - key.top;
  if (key.solver == Solver::direct) return bytes(key, *plan_for(rows, key.width));
  return planes_bytes(key) + iterative_bytes(rows, key.width);
}

std::size_t FrameSolver::bytes(const Key& key, const Plan& plan) {
  const std::size_t ld = (key.width + 15) / 16 * 16 + 32;
  return planes_bytes(key) +
         DirectSolver::bytes(plan, key.threads, ld * (plan.rows + 3) * sizeof(double)) +
         plan.factor_size * sizeof(float);
}

std::size_t FrameSolver::planes_bytes(const Key& key) {
  const int rows = key.bottom - key.top;
  const std::size_t ld = (key.width + 15) / 16 * 16 + 32, plane = ld * (rows + 3);
  const auto planes = [&](int count, std::size_t bytes) { return count * plane * bytes; };
  // Couplings to the seeds are touched in few rows, or in many only with a mask.
  std::size_t sum = CouplingStore<float>::bytes(rows, key.width) + planes(1, sizeof(float));
  if (key.exact)
    sum += CouplingStore<double>::bytes(rows, key.width) + Assembly::bytes(key.height, key.width);
  if (key.solver == Solver::iterative)
    sum += planes(1, sizeof(double)) + (key.exact ? 0 : planes(1, sizeof(float)));
  return sum;
}

std::size_t FrameSolver::held() const { return fixed_bytes_ + own_factor_.bytes() + b_.bytes(); }

void FrameSolver::prepare(const Team& team, const FrameView& frame, float* factor) {
  // The residual's plane is free until the first solve.
  assembly_.prepare(team, frame, key_.exact ? nullptr : r_.as<std::int32_t>());
  set_up(team, frame, factor, false);
}

void FrameSolver::prepare_adjoint(const Team& team, const FrameView& frame, float* factor) {
  if (factor && plan_ && plan_->compact && !key_.exact) {
    // Tile factors are made again: from the very couplings that the kept factor was made from.
    assembly_.prepare(team, frame, r_.as<std::int32_t>());
    assembly_.couple(team, frame, couplings_.get());
  }
  assembly_.prepare(team, frame, nullptr);  // derivatives are taken in double
  set_up(team, frame, factor, factor != nullptr);
}

void FrameSolver::set_up(const Team& team, const FrameView& frame, float* factor, bool known) {
  if (iterative_ && key_.exact) return assembly_.couple(team, frame, exact_.get());
  if (!known || (plan_ && plan_->compact && key_.exact))
    assembly_.couple(team, frame, couplings_.get());
  if (iterative_) return;
  if (key_.exact) assembly_.couple(team, frame, exact_.get());
  if (team.index == 0) {
    factor_ = factor ? factor : own_factor_.as<float>();
    direct_->use(couplings_.get());
  }
  team.barrier();
  if (!known) direct_->eliminate(team, couplings_.get(), factor_);
}

double FrameSolver::largest(const Team& team, double mine) {
  partial_[team.index].value = mine;
  team.barrier();
  double m = 0;
  for (int t = 0; t < team.size; ++t)
    // A NaN must not be lost: it is how a failed elimination shows.
    m = partial_[t].value > m || std::isnan(partial_[t].value) ? partial_[t].value : m;
  team.barrier();
  return m;
}

void FrameSolver::residual(const Pixels& p, int row, bool map) {
  const FluxKernels& k = flux_kernels();
  const double* given = map ? nullptr : b();
  float* r = r_.as<float>() + origin_;
  if (key_.exact)
    k.residual_double(exact_.get(), row, p.column[0], p.column[1], x(), given, r);
  else
    k.residual_float(couplings_.get(), row, p.column[0], p.column[1], x(), given, r);
}

// x lies where update matrices were: what the flux reads around it must be numbers again.
void FrameSolver::clear_border(const Team& team) {
  const auto rows = team.share(rows_ + 2);
  for (long i = rows.begin - 1; i < rows.end - 1; ++i) {
    double* row = x() + i * ld_;
    const bool outside = i < 0 || i == rows_;
    std::fill(row - block, outside ? row + key_.width : row, 0.0);
    std::fill(row + key_.width, row + ld_ - block, 0.0);
  }
  team.barrier();
}

double FrameSolver::correct(const Team& team) {
  const auto rows = team.share(rows_);
  const float* dx = r_.as<float>() + origin_;
  double m = 0;
  for (long i = rows.begin; i < rows.end; ++i) {
    const double row = flux_kernels().correct(x() + i * ld_, dx + i * ld_, key_.width);
    m = row > m || std::isnan(row) ? row : m;
  }
  return largest(team, m);
}

// Corrections from the residual, until one is small against the solution. Starts from x(), and from
// its residual's forward sweep if that was done.
RandomWalkReport FrameSolver::refine(const Team& team, bool map, bool forwarded, double tolerance) {
  float* r = r_.as<float>() + origin_;
  double size = map ? 1.0 : 0.0;  // of the solution; a map's is known
  for (int step = 1;; ++step) {
    if (step > 1 || !forwarded) {
      const auto rows = team.share(rows_);
      const Pixels all{{0, rows_}, {0, key_.width}};
      for (long row = rows.begin; row < rows.end; ++row) residual(all, static_cast<int>(row), map);
      team.barrier();
      direct_->forward(team, factor_, r, ld_);
    }
    direct_->backward(team, factor_, r, ld_);
    const double m = correct(team);
    size = std::max(size, m);
    if (std::isnan(m) || step == most_steps)
      throw std::runtime_error(
          "the direct solver's corrections did not become small; pass solver=\"iterative\"");
    if (m <= tolerance * size) return {step, m};
  }
}

// The iterative solver from zero.
RandomWalkReport FrameSolver::iterate(const Team& team, bool map, void (*checkpoint)()) {
  const auto rows = team.share(rows_);
  IterativeResult result;
  if (key_.exact) {
    for (long i = rows.begin; i < rows.end; ++i) std::fill_n(x() + i * ld_, key_.width, 0.0);
    result = solve_iterative<double>(team, exact_.get(), map ? nullptr : b(), x(), ld_,
                                     iterative_double, *iterative_, checkpoint);
  } else {
    float* given = r_.as<float>() + origin_;
    float* single = single_.as<float>() + origin_;
    for (long i = rows.begin; i < rows.end; ++i) {
      std::fill_n(single + i * ld_, key_.width, 0.0f);
      if (!map) std::copy_n(b() + i * ld_, key_.width, given + i * ld_);
    }
    team.barrier();
    result = solve_iterative<float>(team, couplings_.get(), map ? nullptr : given, single, ld_,
                                    iterative_float, *iterative_, checkpoint);
    for (long i = rows.begin; i < rows.end; ++i)
      std::copy_n(single + i * ld_, key_.width, x() + i * ld_);
  }
  team.barrier();
  return {result.iterations, result.correction};
}

RandomWalkReport FrameSolver::solve_map(const Team& team, void (*checkpoint)()) {
  if (iterative_) return iterate(team, true, checkpoint);
  clear_border(team);
  // The first correction's forward sweep follows each subtree's solution at once.
  float* r = r_.as<float>() + origin_;
  // Row by row through all rectangles at once: those of a group lie side by side, and rows of one
  // page of memory are worked on together.
  const auto each_row = [](const Pixels* rectangles, int count, const auto& work) {
    for (int i = 0; i < rectangles->row[1] - rectangles->row[0]; ++i)
      for (int k = 0; k < count; ++k) work(rectangles[k], rectangles[k].row[0] + i);
  };
  direct_->solve_map(
      team, factor_, r, ld_,
      [&](const Pixels* rectangles, int count) {
        each_row(rectangles, count, [&](const Pixels& p, int row) {
          std::copy(r + row * ld_ + p.column[0], r + row * ld_ + p.column[1],
                    x() + row * ld_ + p.column[0]);
        });
      },
      [&](const Pixels* rectangles, int count) {
        each_row(rectangles, count, [&](const Pixels& p, int row) { residual(p, row, true); });
      });
  return refine(team, true, true, key_.exact ? double_correction : float_correction);
}

RandomWalkReport FrameSolver::solve_adjoint(const Team& team, void (*checkpoint)()) {
  const auto rows = team.share(rows_);
  double m = 0;
  for (long i = rows.begin; i < rows.end; ++i)
    for (int c = 0; c < key_.width; ++c) {
      const double size = std::fabs(b()[i * ld_ + c]);
      m = size > m || std::isnan(size) ? size : m;
    }
  m = largest(team, m);
  if (!std::isfinite(m)) {  // a loss that overflowed: its gradient is no number either
    for (long i = rows.begin; i < rows.end; ++i)
      std::fill_n(x() + i * ld_, key_.width, std::numeric_limits<double>::quiet_NaN());
    team.barrier();
    return {0, m};
  }
  for (long i = rows.begin; i < rows.end; ++i) {
    std::fill_n(x() + i * ld_, key_.width, 0.0);
    for (int c = 0; c < key_.width; ++c) b()[i * ld_ + c] *= m > 0 ? 1.0 / m : 0.0;
  }
  team.barrier();
  RandomWalkReport report{1, 0};
  if (!iterative_) clear_border(team);
  if (iterative_) {
    report = iterate(team, false, checkpoint);
  } else if (key_.exact) {
    report = refine(team, false, false, double_correction);
  } else {
    // The float factor alone is right to 1.3e-6 of the largest value: enough beside a float map.
    float* r = r_.as<float>() + origin_;
    for (long i = rows.begin; i < rows.end; ++i)
      for (int c = 0; c < key_.width; ++c) r[i * ld_ + c] = static_cast<float>(b()[i * ld_ + c]);
    team.barrier();
    direct_->forward(team, factor_, r, ld_);
    direct_->backward(team, factor_, r, ld_);
    report.correction = correct(team);
  }
  for (long i = rows.begin; i < rows.end; ++i)
    for (int c = 0; c < key_.width; ++c) x()[i * ld_ + c] *= m;
  team.barrier();
  return report;
}

// ---- the store
// -----------------------------------------------------------------------------------

BorrowedSolver::BorrowedSolver(const FrameSolver::Key& key) {
  {
    const std::lock_guard<ForkMutex> lock(store_mutex);
    const auto it =
        std::find_if(store.begin(), store.end(), [&](const auto& s) { return s->key() == key; });
    if (it != store.end()) {
      solver_ = std::move(*it);
      store.erase(it);
    }
  }
  if (!solver_) solver_ = std::make_unique<FrameSolver>(key);
}

BorrowedSolver::~BorrowedSolver() {
  if (!solver_) return;
  std::list<std::unique_ptr<FrameSolver>> dropped;  // freed outside the lock
  const std::lock_guard<ForkMutex> lock(store_mutex);
  store.push_front(std::move(solver_));
  std::size_t held = 0;
  int count = 0;
  for (auto it = store.begin(); it != store.end();) {
    held += (*it)->held();
    ++count;
    const auto next = std::next(it);
    if (held > store_bytes() || count > store_count) dropped.splice(dropped.end(), store, it);
    it = next;
  }
}

void forget_solvers() {
  std::list<std::unique_ptr<FrameSolver>> dropped;
  const std::lock_guard<ForkMutex> lock(store_mutex);
  dropped.swap(store);
}

}  // namespace usconf::cpu
