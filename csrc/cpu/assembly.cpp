#include "assembly.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace usconf::cpu {
namespace {

constexpr std::size_t scalar_bytes[] = {1, 2, 2, 2, 4, 8};

// Kernel by (type of c, type of weight).
template <class C, class T>
auto weigh_kernel() {
  const AssemblyKernels& k = assembly_kernels();
  if constexpr (std::is_same_v<C, std::int32_t>)
    return k.weigh_fixed;
  else if constexpr (std::is_same_v<T, float>)
    return k.weigh_mixed;
  else
    return k.weigh_double;
}

template <class T>
SeedRow<T> seed_kernel() {
  if constexpr (std::is_same_v<T, float>)
    return assembly_kernels().seed_float;
  else
    return assembly_kernels().seed_double;
}

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

std::size_t bytes_per_pixel(Scalar scalar) { return scalar_bytes[static_cast<int>(scalar)]; }

template <class T>
std::size_t CouplingStore<T>::bytes(int rows, int columns) {
  const long ld = (columns + 15) / 16 * 16 + 32;
  return 6 * sizeof(T) * static_cast<std::size_t>(ld) * (rows + 1 + Couplings<T>::pad_rows);
}

template <class T>
void CouplingStore<T>::resize(int rows, int columns) {
  Couplings<T>& c = couplings_;
  if (c.rows == rows && c.columns == columns && planes_.bytes()) return;
  planes_.release();
  seeded_.release();
  planes_.reserve(bytes(rows, columns));
  seeded_.reserve(static_cast<std::size_t>(std::max(rows, 1)));
  c.rows = rows;
  c.columns = columns;
  c.ld = (columns + 15) / 16 * 16 + 32;
  const long plane = c.ld * (rows + 1 + Couplings<T>::pad_rows);
  T* p = planes_.as<T>() + c.ld + 16;
  for (T** q : {&c.right, &c.below, &c.below_right, &c.below_left, &c.source, &c.sink}) {
    *q = p;
    p += plane;
  }
  c.seeded = seeded_.as<std::uint8_t>();
}

template class CouplingStore<float>;
template class CouplingStore<double>;

FrameView::FrameView(const RandomWalkProblem& problem, int frame)
    : problem(problem),
      pixels(static_cast<const std::uint8_t*>(problem.image) + static_cast<std::size_t>(frame) *
                                                                   problem.height * problem.width *
                                                                   bytes_per_pixel(problem.scalar)),
      labels(problem.labels
                 ? problem.labels + (problem.labels_shared ? 0
                                                           : static_cast<std::size_t>(frame) *
                                                                 problem.height * problem.width)
                 : nullptr) {
  const std::size_t w = problem.width;
  const int h = problem.height;
  free_rows_.assign(static_cast<std::size_t>(h), 1);
  if (labels) {
    for (int r = 0; r < h; ++r)
      for (std::size_t i = 0; i < w; ++i) {
        const std::uint8_t l = labels[r * w + i];
        if (l != static_cast<std::uint8_t>(Label::free)) free_rows_[r] = 0;
        if (l == static_cast<std::uint8_t>(Label::outside)) masked = true;
      }
  } else {
    all_source_.assign(w, static_cast<std::uint8_t>(Label::source));
    all_none_.assign(w, static_cast<std::uint8_t>(Label::free));
    all_sink_.assign(w, static_cast<std::uint8_t>(Label::sink));
    free_rows_.front() = free_rows_.back() = 0;
  }
}

const void* FrameView::row(int r) const {
  return pixels + static_cast<std::size_t>(r) * problem.width * bytes_per_pixel(problem.scalar);
}

const std::uint8_t* FrameView::label_row(int r) const {
  if (r < 0 || r >= problem.height) return nullptr;
  if (labels) return labels + static_cast<std::size_t>(r) * problem.width;
  if (r == 0) return all_source_.data();
  return r == problem.height - 1 ? all_sink_.data() : all_none_.data();
}

std::size_t Assembly::bytes(int height, int width) {
  return static_cast<std::size_t>(height) * stride(width) * sizeof(double);
}

// The double form is reserved in any case: pages that are never touched cost nothing, and a team
// cannot fail half-way.
Assembly::Assembly(int height, int width, int threads)
    : stride_(stride(width)),
      c_(bytes(height, width)),
      partial_(static_cast<std::size_t>(threads)) {}

template <class C>
const C* Assembly::attenuated_row(int r) const {
  if constexpr (std::is_same_v<C, double>)
    return attenuated(r);
  else
    return fixed_ + r * stride_;
}

void Assembly::attenuate_rows(const Team& team, const FrameView& frame, bool exact) {
  const RandomWalkProblem& p = frame.problem;
  const AssemblyKernels& k = assembly_kernels();
  const double magnitude = p.normalise ? 1.0 : std::max(high, -low);
  const double base = p.normalise ? low : 0.0;
  const double fixed_scale = scale / (magnitude > 0 ? magnitude : 1.0);
  const auto rows = team.share(p.height);
  for (long r = rows.begin; r < rows.end; ++r) {
    const double a = attenuation(p.alpha, static_cast<int>(r), p.height);
    if (exact) {
      k.attenuate(p.scalar, frame.row(r), p.width, base, scale * a, c_.as<double>() + r * stride_);
    } else {
      k.attenuate_fixed(p.scalar, frame.row(r), p.width, base, fixed_scale * a,
                        fixed_ + r * stride_);
    }
  }
  team.barrier();
  if (team.index == 0) {
    double_ = exact;
    unit_ = exact ? 1.0 : (magnitude > 0 ? magnitude : 1.0) / fixed_point;
  }
}

template <class C>
void Assembly::reduce_maxima(const Team& team, const FrameView& frame) {
  const RandomWalkProblem& p = frame.problem;
  const AssemblyKernels& k = assembly_kernels();
  const auto rows = team.share(p.height);
  Maxima m{-1, -1};
  for (long r = rows.begin; r < rows.end; ++r) {
    const C* row = attenuated_row<C>(static_cast<int>(r));
    const C* next = r + 1 < p.height ? row + stride_ : nullptr;
    const std::uint8_t* label = frame.masked ? frame.label_row(r) : nullptr;
    const std::uint8_t* label_next = label ? frame.label_row(r + 1) : nullptr;
    Maxima n;
    if constexpr (std::is_same_v<C, double>)
      n = k.maxima(row, next, label, label_next, p.width);
    else
      n = k.maxima_fixed(row, next, label, label_next, p.width);
    m.lateral = std::max(m.lateral, n.lateral);
    m.vertical = std::max(m.vertical, n.vertical);
  }
  partial_[team.index].maxima = m;
  team.barrier();
  if (team.index == 0) {
    for (int t = 1; t < team.size; ++t) {
      m.lateral = std::max(m.lateral, partial_[t].maxima.lateral);
      m.vertical = std::max(m.vertical, partial_[t].maxima.vertical);
    }
    max_lateral = m.lateral < 0 ? -1 : m.lateral * unit_;
    max_vertical = m.vertical < 0 ? -1 : m.vertical * unit_;
    law = edge_law(max_lateral, max_vertical, p.beta, p.gamma, p.variant);
  }
  team.barrier();
}

void Assembly::prepare(const Team& team, const FrameView& frame, std::int32_t* fixed) {
  const bool exact = !fixed;
  const RandomWalkProblem& p = frame.problem;
  const auto rows = team.share(p.height);
  Extremes e{infinity, -infinity};
  for (long r = rows.begin; r < rows.end; ++r) {
    const Extremes row = assembly_kernels().extremes(
        p.scalar, frame.row(r), frame.masked ? frame.label_row(r) : nullptr, p.width);
    e.low = std::min(e.low, row.low);
    e.high = std::max(e.high, row.high);
  }
  partial_[team.index].extremes = e;
  team.barrier();
  if (team.index == 0) {
    for (int t = 1; t < team.size; ++t) {
      e.low = std::min(e.low, partial_[t].extremes.low);
      e.high = std::max(e.high, partial_[t].extremes.high);
    }
    if (e.low > e.high) e = {0, 0};  // no valid pixel at all
    low = e.low;
    high = e.high;
    fixed_ = fixed;
    scale = p.normalise ? 1.0 / ((high - low) + random_walk_epsilon) : 1.0;
  }
  team.barrier();
  if (!std::isfinite(high - low))
    throw std::invalid_argument(
        "image must span a finite range, got values whose difference overflows; scale it down");
  attenuate_rows(team, frame, exact);
  team.barrier();
  if (exact) return reduce_maxima<double>(team, frame);
  reduce_maxima<std::int32_t>(team, frame);
  // Differences of fewer than 22 significant bits would give weights with errors above 2e-5 (beta
  // 90).
  if (std::max(max_lateral, max_vertical) >= unit_ * (1 << 22)) return;
  team.barrier();
  attenuate_rows(team, frame, true);
  team.barrier();
  reduce_maxima<double>(team, frame);
}

template <class C, class T>
void Assembly::couple_rows(const Team& team, const FrameView& frame, Couplings<T>& out) {
  const RandomWalkProblem& p = frame.problem;
  const auto weigh = weigh_kernel<C, T>();
  const auto seed = seed_kernel<T>();
  const int w = p.width;
  std::vector<T> scratch(static_cast<std::size_t>(8) * w);
  EdgeRow<T> above, here;
  T* s = scratch.data();
  for (T** q : {&above.right, &above.below, &above.below_right, &above.below_left, &here.right,
                &here.below, &here.below_right, &here.below_left}) {
    *q = s;
    s += w;
  }
  const auto c_row = [&](int r) -> const C* {
    return r < p.height ? attenuated_row<C>(r) : nullptr;
  };
  const auto rows = team.share(out.rows);
  for (long q = rows.begin; q < rows.end; ++q) {
    const int r = static_cast<int>(q) + p.top;
    const long at = q * out.ld;
    const EdgeRow<T> target{out.right + at, out.below + at, out.below_right + at,
                            out.below_left + at};
    const auto clear = [&] {
      if (!out.seeded[q]) return;
      std::fill_n(out.source + at, w, T(0));
      std::fill_n(out.sink + at, w, T(0));
      out.seeded[q] = 0;
    };
    const bool plain = frame.all_free(r) && (r == 0 || frame.all_free(r - 1)) &&
                       (r + 1 == p.height || frame.all_free(r + 1));
    if (plain) {
      clear();
      weigh(law, unit_, c_row(r), c_row(r + 1), w, target);
      continue;
    }
    if (r > 0) weigh(law, unit_, c_row(r - 1), c_row(r), w, above);
    weigh(law, unit_, c_row(r), c_row(r + 1), w, here);
    seed({above.right, above.below, above.below_right, above.below_left},
         {here.right, here.below, here.below_right, here.below_left}, frame.label_row(r - 1),
         frame.label_row(r), frame.label_row(r + 1), w, target, out.source + at, out.sink + at);
    out.seeded[q] = 1;
  }
  team.barrier();
}

template <class T>
void Assembly::couple(const Team& team, const FrameView& frame, Couplings<T>& out) {
  if (double_) return couple_rows<double, T>(team, frame, out);
  if constexpr (std::is_same_v<T, float>) couple_rows<std::int32_t, T>(team, frame, out);
}

template void Assembly::couple<float>(const Team&, const FrameView&, Couplings<float>&);
template void Assembly::couple<double>(const Team&, const FrameView&, Couplings<double>&);

void Assembly::edges(const Team& team, const FrameView& frame, double* out) {
  const RandomWalkProblem& p = frame.problem;
  const int w = p.width;
  const std::size_t plane = static_cast<std::size_t>(p.height) * w;
  const auto rows = team.share(p.height);
  for (long r = rows.begin; r < rows.end; ++r) {
    const bool last = r + 1 == p.height;
    double* row[4];
    for (int k = 0; k < 4; ++k) row[k] = out + k * plane + r * w;
    weigh_kernel<double, double>()(law, 1.0, attenuated(static_cast<int>(r)),
                                   last ? nullptr : attenuated(static_cast<int>(r) + 1), w,
                                   {row[0], row[1], row[2], row[3]});
    if (!frame.masked) continue;
    const std::uint8_t *l = frame.label_row(r), *n = frame.label_row(r + 1);
    const auto outside = [](std::uint8_t x) {
      return x == static_cast<std::uint8_t>(Label::outside);
    };
    for (int i = 0; i < w; ++i) {
      const bool o = outside(l[i]);
      if (o || (i + 1 < w && outside(l[i + 1]))) row[0][i] = 0;
      if (o || (n && outside(n[i]))) row[1][i] = 0;
      if (o || (n && i + 1 < w && outside(n[i + 1]))) row[2][i] = 0;
      if (o || (n && i > 0 && outside(n[i - 1]))) row[3][i] = 0;
    }
  }
  team.barrier();
}

}  // namespace usconf::cpu
