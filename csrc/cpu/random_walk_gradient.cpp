// The random walk's derivative on the CPU: one adjoint solve, then the chain through weights,
// maxima, attenuation and scaling (docs/random_walk.md, "Gradient").
#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "../kernels.h"
#include "assembly.h"
#include "direct.h"
#include "frame_solver.h"
#include "frames.h"
#include "gradient_kernels.h"

namespace usconf::cpu {
namespace {

// Loss derivatives, frame after frame, in memory of its own. All functions but the constructor are
// called by every member of one team.
class FrameGradient {
 public:
  FrameGradient(const RandomWalkProblem& problem, FrameSolver& solver)
      : p_(problem),
        solver_(solver),
        assembly_(solver.assembly()),
        pixels_(static_cast<std::size_t>(p_.height) * p_.width),
        planes_(4 * pixels_ * sizeof(double)),
        row_sums_(static_cast<std::size_t>(p_.height)) {
    double** planes[] = {&own_, &carried_, &map_, &adjoint_};
    for (int k = 0; k < 4; ++k) *planes[k] = planes_.as<double>() + k * pixels_;
    solver.reserve_b();
  }

  double d_parameters[3] = {0, 0, 0};  // of the last frame: alpha, beta, gamma

  template <class T>
  void run(const Team& team, const FrameView& frame, const T* map, const T* d_map, T* d_image,
           void (*checkpoint)()) {
    team.barrier();
    if (team.index == 0) frame_ = &frame;
    team.barrier();
    load(team, map, d_map);
    solver_.solve_adjoint(team, checkpoint);
    spread_adjoint(team);
    differentiate_edges(team);
    differentiate_maxima(team);
    differentiate_pixels(team, d_image);
  }

 private:
  // Sums of one row; added in row order, so that the result does not depend on the team.
  struct RowSums {
    EdgeSums edges[2];  // by kind
    double alpha, low, high;
    long lows, highs;
  };

  // Adjoint right-hand side, and the map in double.
  template <class T>
  void load(const Team& team, const T* map, const T* d_map) {
    const int w = p_.width;
    const auto rows = team.share(p_.height);
    for (long r = rows.begin; r < rows.end; ++r) {
      for (int c = 0; c < w; ++c) map_[r * w + c] = map[r * w + c];
      std::fill_n(own_ + r * w, w, 0.0);
      std::fill_n(carried_ + r * w, w, 0.0);
      if (r < p_.top || r >= p_.bottom) continue;
      double* b = solver_.b() + (r - p_.top) * solver_.ld();
      const std::uint8_t* label = frame_->label_row(static_cast<int>(r));
      for (int c = 0; c < w; ++c)
        // A map of exactly 0 has no path to the source: it moves with nothing. (Such a piece may
        // touch no sink either, and its system is singular then.)
        b[c] = label[c] == static_cast<std::uint8_t>(Label::free) && map[r * w + c] != 0
                   ? static_cast<double>(d_map[r * w + c])
                   : 0.0;
    }
    team.barrier();
  }

  void spread_adjoint(const Team& team) {
    const int w = p_.width;
    const auto rows = team.share(p_.height);
    for (long r = rows.begin; r < rows.end; ++r) {
      const bool unknown = r >= p_.top && r < p_.bottom;
      const double* x = solver_.x() + (r - p_.top) * solver_.ld();
      for (int c = 0; c < w; ++c) adjoint_[r * w + c] = unknown ? x[c] : 0.0;
    }
    team.barrier();
  }

  EdgeEnds ends(long r, int c) const {
    const long at = r * p_.width + c;
    return {assembly_.attenuated(static_cast<int>(r)) + c, map_ + at, adjoint_ + at,
            frame_->masked ? frame_->label_row(static_cast<int>(r)) + c : nullptr};
  }

  // f(kind, one end, other end, n, d_one, d_other) for the rows of edges that start in row r. Their
  // lower ends are collected apart, so that no two members write one row.
  template <class F>
  void for_edges(long r, F f) {
    const int w = p_.width;
    double* d = own_ + r * w;
    f(0, ends(r, 0), ends(r, 1), w - 1, d, d + 1);
    if (r + 1 == p_.height) return;
    double* n = carried_ + (r + 1) * w;
    f(1, ends(r, 0), ends(r + 1, 0), w, d, n);
    f(0, ends(r, 0), ends(r + 1, 1), w - 1, d, n + 1);
    f(0, ends(r, 1), ends(r + 1, 0), w - 1, d + 1, n);
  }

  double largest(int kind) const {
    return kind == 0 ? assembly_.max_lateral : assembly_.max_vertical;
  }

  void differentiate_edges(const Team& team) {
    const auto rows = team.share(p_.height);
    for (long r = rows.begin; r < rows.end; ++r) {
      row_sums_[r] = {};
      for_edges(r, [&](int kind, EdgeEnds a, EdgeEnds b, int n, double* d_a, double* d_b) {
        add(row_sums_[r].edges[kind],
            gradient_kernels().edges(assembly_.law, kind, largest(kind), a, b, n, d_a, d_b));
      });
    }
    team.barrier();
    if (team.index == 0) {
      sums_[0] = sums_[1] = {};
      for (const RowSums& row : row_sums_)
        for (int kind = 0; kind < 2; ++kind) add(sums_[kind], row.edges[kind]);
    }
    team.barrier();
  }

  static void add(EdgeSums& to, const EdgeSums& s) {
    to.d_beta += s.d_beta;
    to.d_u += s.d_u;
    to.d_m2 += s.d_m2;
    to.d_u_d += s.d_u_d;
    to.at_maximum += s.at_maximum;
  }

  // M2, then M: their derivatives go in equal shares to the edges that attain them.
  void differentiate_maxima(const Team& team) {
    const EdgeLaw& law = assembly_.law;
    double u[2], m2 = 0;
    for (int k = 0; k < 2; ++k) {
      u[k] = largest(k) >= 0 ? largest(k) * law.scale1 + law.gamma[k] : -1;
      m2 = std::max(m2, u[k]);
    }
    long at_m2 = 0, at_m = 0;
    const double m = std::max(assembly_.max_lateral, assembly_.max_vertical);
    for (int k = 0; k < 2; ++k) {
      if (u[k] == m2) at_m2 += sums_[k].at_maximum;
      if (largest(k) == m) at_m += sums_[k].at_maximum;
    }
    const double d_m2 = sums_[0].d_m2 + sums_[1].d_m2;
    double d_u_d = sums_[0].d_u_d + sums_[1].d_u_d, d_u[2], share[2] = {0, 0};
    for (int k = 0; k < 2; ++k) {
      d_u[k] = sums_[k].d_u;
      if (u[k] != m2 || at_m2 == 0) continue;
      const double part = d_m2 / at_m2, all = part * sums_[k].at_maximum;
      d_u[k] += all;
      d_u_d += all * largest(k);
      share[k] += part * law.scale1;
    }
    const double d_m = -d_u_d * law.scale1 * law.scale1;
    for (int k = 0; k < 2; ++k)
      if (largest(k) == m && at_m > 0) share[k] += d_m / at_m;
    if (team.index == 0) {
      d_parameters[1] = sums_[0].d_beta + sums_[1].d_beta;
      d_parameters[2] = p_.variant == 0 ? d_u[0] : d_u[1];
    }
    const auto rows = team.share(p_.height);
    for (long r = rows.begin; r < rows.end; ++r) {
      const EdgeSums* at = row_sums_[r].edges;
      if (at[0].at_maximum + at[1].at_maximum == 0) continue;
      for_edges(r, [&](int kind, EdgeEnds a, EdgeEnds b, int n, double* d_a, double* d_b) {
        gradient_kernels().maxima(largest(kind), share[kind], a, b, n, d_a, d_b);
      });
    }
    team.barrier();
  }

  // c = g a(y), g = (image - low) scale.
  template <class T>
  void differentiate_pixels(const Team& team, T* d_image) {
    const int w = p_.width;
    const double scale = assembly_.scale;
    std::vector<double> g(static_cast<std::size_t>(w));
    const auto rows = team.share(p_.height);
    for (long r = rows.begin; r < rows.end; ++r) {
      RowSums& sum = row_sums_[r];
      sum = {};
      scaled_row(r, g.data());
      const double a = attenuation(p_.alpha, static_cast<int>(r), p_.height);
      const double d_a = d_attenuation(p_.alpha, static_cast<int>(r), p_.height);
      const std::uint8_t* label = frame_->masked ? frame_->label_row(static_cast<int>(r)) : nullptr;
      for (int c = 0; c < w; ++c) {
        const double d_c = own_[r * w + c] + carried_[r * w + c];
        sum.alpha += d_c * g[c] * d_a;
        const double d_g = d_c * a;
        own_[r * w + c] = d_g;
        if (!p_.normalise || (label && label[c] == static_cast<std::uint8_t>(Label::outside)))
          continue;
        sum.low += d_g * (g[c] - 1);
        sum.high -= d_g * g[c];
        sum.lows += g[c] == 0;
        sum.highs += g[c] == top_value();
      }
    }
    team.barrier();
    RowSums total{};
    for (const RowSums& row : row_sums_) {
      total.alpha += row.alpha;
      total.low += row.low;
      total.high += row.high;
      total.lows += row.lows;
      total.highs += row.highs;
    }
    if (team.index == 0) d_parameters[0] = total.alpha;
    if (!d_image) return;
    const double at_low = total.lows ? total.low * scale / total.lows : 0;
    const double at_high = total.highs ? total.high * scale / total.highs : 0;
    for (long r = rows.begin; r < rows.end; ++r) {
      scaled_row(r, g.data());
      const std::uint8_t* label = frame_->masked ? frame_->label_row(static_cast<int>(r)) : nullptr;
      for (int c = 0; c < w; ++c) {
        double d = own_[r * w + c] * scale;
        const bool counts =
            p_.normalise && !(label && label[c] == static_cast<std::uint8_t>(Label::outside));
        if (counts && g[c] == 0) d += at_low;
        if (counts && g[c] == top_value()) d += at_high;
        d_image[r * w + c] = static_cast<T>(d);
      }
    }
    team.barrier();
  }

  double top_value() const { return (assembly_.high - assembly_.low) * assembly_.scale; }

  void scaled_row(long r, double* g) const {
    const double base = p_.normalise ? assembly_.low : 0.0;
    assembly_kernels().attenuate(p_.scalar, frame_->row(static_cast<int>(r)), p_.width, base,
                                 assembly_.scale, g);
    if (!frame_->masked) return;
    const std::uint8_t* label = frame_->label_row(static_cast<int>(r));
    for (int c = 0; c < p_.width; ++c)  // pixels outside may hold NaN
      if (label[c] == static_cast<std::uint8_t>(Label::outside)) g[c] = 0;
  }

  const RandomWalkProblem& p_;
  FrameSolver& solver_;
  Assembly& assembly_;
  std::size_t pixels_;
  Buffer planes_;
  double *own_, *carried_, *map_, *adjoint_;
  std::vector<RowSums> row_sums_;
  EdgeSums sums_[2];
  const FrameView* frame_ = nullptr;
};

}  // namespace

void random_walk_backward(const RandomWalkProblem& p, const RandomWalkOptions& o, const void* map,
                          const void* factor, const void* d_map, void* d_image,
                          double* d_parameters, void*) {
  std::map<const FrameSolver*, std::unique_ptr<FrameGradient>> gradients;
  std::vector<double> by_frame(3 * static_cast<std::size_t>(p.frames));
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  const std::size_t floats = factor ? random_walk_factor_bytes(p) / sizeof(float) : 0;
  const auto reserve = [&](FrameSolver& solver) {
    if (!factor) solver.reserve_factor();
    gradients[&solver] = std::make_unique<FrameGradient>(p, solver);
  };
  for_each_frame(p, o, reserve, [&](const Team& team, int i, FrameSolver* solver, auto checkpoint) {
    const FrameView frame(p, i);
    FrameGradient& gradient = *gradients.at(solver);
    // A kept factor is only read.
    float* kept = factor ? static_cast<float*>(const_cast<void*>(factor)) + i * floats : nullptr;
    solver->prepare_adjoint(team, frame, kept);
    const auto run = [&](auto type) {
      using T = decltype(type);
      gradient.run(team, frame, static_cast<const T*>(map) + i * pixels,
                   static_cast<const T*>(d_map) + i * pixels,
                   d_image ? static_cast<T*>(d_image) + i * pixels : nullptr, checkpoint);
    };
    if (o.double_map)
      run(double());
    else
      run(float());
    if (team.index == 0) std::copy_n(gradient.d_parameters, 3, &by_frame[3 * i]);
  });
  std::fill_n(d_parameters, 3, 0.0);
  for (std::size_t i = 0; i < by_frame.size(); ++i) d_parameters[i % 3] += by_frame[i];
}

}  // namespace usconf::cpu
