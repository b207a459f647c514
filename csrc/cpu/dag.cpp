// The DAG map on the CPU: row means and laws by rows in parallel, then the sweep by columns.
#include "dag.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "../math/random_walk.h"
#include "assembly.h"
#include "intensity_kernels.h"

namespace usconf::cpu {
namespace {

constexpr int grain = row_grain;
// A member's columns: fewer cost more in waiting than they save.
constexpr int least_columns = 128;
constexpr int most_members = 64;
// Waking a thread costs 20 us or so: what this many pixels take.
constexpr long pixels_per_thread = 96 * 96;
// Smallest x: with xi = 1 every weight is g, and the derivatives by x keep a t to start from.
constexpr double least_decay = 1e-20;
// Where f is a float, D errs by 6e-8, and a map by x rel of that: x above this, which has some 50
// rows at most, could cost more than 1e-6.
constexpr double float_decay = 0.05;

int rounded(int n, int to) { return (n + to - 1) / to * to; }

}  // namespace

bool dag_in_double(const DagProblem& p, const DagOptions& o) {
  return o.double_map || dag_decay(p.xi, p.alpha, p.height).x > float_decay;
}

template <class T>
DagFrame<T>::DagFrame(const DagProblem& p, bool keep)
    : p(p), half_width(p.half_width), slots(rounded(2 * p.half_width + 1, 8)), keep_(keep) {
  const int edge = rounded(half_width, grain), margin = keep ? 2 * edge + grain : edge;
  const long stride = MarginRows<T>::stride_of(p.width, margin);
  const long h = p.height, c_rows = keep ? h : 2;
  const long mask_rows = p.valid ? h : 0;
  const long laws = std::max(h - 1, 0L) * dag_planes * slots;
  memory_ = std::make_unique<Block>(sizeof(T) * (stride * (h + c_rows + mask_rows) + laws));
  T* next = static_cast<T*>(memory_->data()) + margin;
  const auto take = [&](MarginRows<T>& rows, long count) {
    if (count) rows = {next, stride, p.width, margin};
    next += count * stride;
  };
  take(f, h);
  take(c, c_rows);
  take(mask, mask_rows);
  planes_ = next - margin;
  means_.reset(new double[static_cast<std::size_t>(std::max(h - 1, 1L)) * slots]);
  laws_.resize(static_cast<std::size_t>(std::max(h - 1, 0L)));
  row_low_.resize(static_cast<std::size_t>(h));
  row_high_.resize(static_cast<std::size_t>(h));
  if (p.valid) {
    edges_.resize(laws_.size() * slots);
    full_.resize(static_cast<std::size_t>(h));
    first_valid_.resize(static_cast<std::size_t>(p.width));
  }
  member_highest_.resize(most_members);
  bell.assign(static_cast<std::size_t>(slots), 0.0);
  beam = bell;
  beam_scale = dag_beam(p.var, half_width, p.variant, nullptr);
  for (int k = 0; k <= 2 * half_width; ++k) {
    bell[k] = dag_bell(k, half_width, p.var);
    beam[k] = bell[k] * beam_scale.scale;
  }
  if (p.power != 1 && dag_steps<T>().raise(p.power, raise_)) raise = raise_;
  x = std::max(dag_decay(p.xi, p.alpha, p.height).x, least_decay);
}

template <class T>
DagRow<T> DagFrame<T>::row(int r) const {
  if (p.variant == 0) return {f.row(r + 1), f.row(r), 1, half_width};
  return {f.row(r), f.row(r + 1), -1, half_width};
}

template <class T>
DagLaw<T> DagFrame<T>::law(int r) const {
  return laws_[r];
}

template <class T>
double DagFrame<T>::cap(int r) const {
  const double most = p.variant == 0 ? 1.0 : std::numeric_limits<double>::infinity();
  return reference_ ? std::min(most, reference_[r]) : most;
}

template <class T>
double DagFrame<T>::output_scale(int r, int column) const {
  return dag_output_scale(reference(r),
                          artifact_ ? artifact_[static_cast<long>(r) * p.width + column] : 0.0);
}

template <class T>
void DagFrame<T>::prepare(const Team& team, int frame) {
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  if (team.index == 0) {
    frame_ = frame;
    valid_ = p.valid ? p.valid + (p.valid_shared ? 0 : frame * pixels) : nullptr;
    reference_ = p.reference
                     ? p.reference + (p.reference_shared ? 0 : static_cast<long>(frame) * p.height)
                     : nullptr;
    const std::size_t at = p.artifact_shared ? 0 : frame * pixels;
    needle_ = p.needle ? p.needle + at : nullptr;
    artifact_ = p.artifact ? p.artifact + at : nullptr;
    if (valid_) find_sources();
  }
  team.barrier();
  scale_rows(team);
  measure_rows(team);
}

template <class T>
void DagFrame<T>::find_sources() {
  std::fill(first_valid_.begin(), first_valid_.end(), p.height);
  for (int r = p.height - 1; r >= 0; --r) {
    const std::uint8_t* valid = valid_ + static_cast<long>(r) * p.width;
    int count = 0;
    for (int i = 0; i < p.width; ++i) {
      if (!valid[i]) continue;
      first_valid_[i] = r;
      ++count;
    }
    full_[r] = count == p.width;
  }
}

// f and its margins; what an invalid pixel holds is finite and counts nowhere.
template <class T>
void DagFrame<T>::scale_rows(const Team& team) {
  const IntensityKernels& k = intensity_kernels();
  const std::size_t row_bytes = p.width * bytes_per_pixel(p.scalar);
  const auto* image = static_cast<const char*>(p.image) + frame_ * row_bytes * p.height;
  const auto valid_row = [&](long r) { return valid_ ? valid_ + r * p.width : nullptr; };
  const auto rows = team.share(p.height);
  for (long r = rows.begin; r < rows.end; ++r) {
    const IntensityRange e = k.range(p.scalar, image + r * row_bytes, valid_row(r), p.width);
    row_low_[r] = e.low;
    row_high_[r] = e.high;
  }
  team.barrier();
  const double lowest = *std::min_element(row_low_.begin(), row_low_.end());
  const double most = *std::max_element(row_high_.begin(), row_high_.end());
  if (lowest <= most && !std::isfinite(most - lowest))
    throw std::invalid_argument(
        "image must span a finite range, got values whose difference overflows; scale it down");
  double base = 0, scale = 1;
  if (p.normalise && lowest <= most) {
    base = lowest;
    scale = 1.0 / ((most - lowest) + random_walk_epsilon);
  }
  if (team.index == 0) {
    low = lowest;
    high = most;
    factor = scale;
  }
  const auto scale_row = [&](long r, T* out) {
    if constexpr (sizeof(T) == sizeof(float))
      k.scale_float(p.scalar, image + r * row_bytes, valid_row(r), p.width, base, scale, out);
    else
      k.scale_double(p.scalar, image + r * row_bytes, valid_row(r), p.width, base, scale, out);
  };
  for (long r = rows.begin; r < rows.end; ++r) {
    scale_row(r, f.row(r));
    if (p.variant == 0) f.mirror(f.row(r), f.row(r));
    if (!valid_) continue;
    T* m = mask.row(r);
    for (int i = 0; i < p.width; ++i) m[i] = valid_row(r)[i] ? T(1) : T(0);
    mask.mirror(m, m);
  }
  team.barrier();
  if (p.variant == 1)  // margins flipped vertically; see dag_pixels
    for (long r = std::max(rows.begin, 1L); r < rows.end; ++r)
      f.mirror(f.row(r), f.row(p.height - r));
  team.barrier();
}

template <class T>
double DagFrame<T>::reach(int r) const {
  double l = std::min(row_low_[r], row_low_[r + 1]), h = std::max(row_high_[r], row_high_[r + 1]);
  if (p.variant == 1) {  // its margins
    l = std::min(l, row_low_[p.height - 1 - r]);
    h = std::max(h, row_high_[p.height - 1 - r]);
  }
  double span = l <= h ? (h - l) * factor : 0;
  // Invalid pixels hold 0.
  if (valid_) span = p.normalise ? 1.0 : std::max({span, high - std::min(low, 0.0), -low});
  return span * 1.000001 + dag_epsilon;  // of rounded pixels
}

template <class T>
void DagFrame<T>::measure_rows(const Team& team) {
  const DagSteps<T>& steps = dag_steps<T>();
  const int n = 2 * half_width + 1;
  const auto rows = team.share(p.height - 1);
  std::vector<double> sums(static_cast<std::size_t>(n));
  for (long r = rows.begin; r < rows.end; ++r) {
    const DagRow<T> pixels = row(static_cast<int>(r));
    double* mean = means_.get() + r * slots;
    std::fill_n(mean, slots, 1.0);
    if (full(static_cast<int>(r))) {
      steps.sums(pixels, p.width, sums.data());
      for (int k = 0; k < n; ++k) mean[k] = sums[k] / p.width + dag_epsilon;
    } else {
      int* edges = &edges_[r * slots];
      steps.masked_sums(pixels, mask.row(r + 1), mask.row(r), p.width, sums.data(), edges);
      for (int k = 0; k < n; ++k)
        if (edges[k]) mean[k] = sums[k] / edges[k] + dag_epsilon;
    }
    laws_[r].planes = planes_ + r * dag_planes * slots;
    laws_[r].slots = slots;
    laws_[r].raise = raise;
    const DagLawInput in{
        mean,  beam.data(),     p.power, scale(static_cast<int>(r)), reach(static_cast<int>(r)),
        slots, raise != nullptr};
    steps.law(in, planes_ + r * dag_planes * slots, &laws_[r]);
  }
  if (needle_) {
    double most = 0;
    for (long r = rows.begin; r < rows.end; ++r) {
      const bool masked = !full(static_cast<int>(r));
      most =
          std::max(most, steps.largest(row(static_cast<int>(r)), masked ? mask.row(r + 1) : nullptr,
                                       masked ? mask.row(r) : nullptr, p.width));
    }
    member_highest_[team.index] = most;
    team.barrier();
    if (team.index == 0) {
      highest = 0;
      for (int t = 0; t < team.size; ++t) highest = std::max(highest, member_highest_[t]);
      highest += dag_epsilon;
    }
  }
  team.barrier();
}

template <class T>
bool DagFrame<T>::exceptions(int r, int begin, int end, Exception* out) const {
  const long at = static_cast<long>(r) * p.width;
  bool any = false;
  const auto set = [&](int i, Exception e) {
    out[i] = e;
    any = true;
  };
  std::fill(out + begin, out + end, Exception::none);
  if (needle_)
    for (int i = begin; i < end; ++i)
      if (dag_needle_top(r > 0 ? needle_[at - p.width + i] : 0.0f, needle_[at + p.width + i]))
        set(i, Exception::needle);
  if (artifact_)
    for (int i = begin; i < end; ++i)
      if (artifact_[at + i] > dag_artifact_level) set(i, Exception::artifact);
  if (full(r)) return any;
  const T *child = mask.row(r + 1), *parent = mask.row(r);
  int parents = 0;  // of a window that moves with i
  for (int k = -half_width; k < half_width; ++k) parents += parent[begin + k] != 0;
  for (int i = begin; i < end; ++i) {
    parents += parent[i + half_width] != 0;
    if (child[i] == 0)
      set(i, Exception::invalid);
    else if (first_valid_[i] == r + 1)
      set(i, Exception::source);
    else if (parents <= 2 * half_width && out[i] == Exception::none)
      set(i, Exception::lone);
    parents -= parent[i - half_width] != 0;
  }
  return any;
}

template <class T>
DagColumn<T> DagFrame<T>::exceptional(int r, Exception e) const {
  return {row(r),
          nullptr,
          full(r) ? nullptr : mask.row(r),
          mean(r),
          bell.data(),
          beam_scale.scale,
          p.power,
          scale(r),
          e == Exception::needle ? highest : 0.0,
          e == Exception::artifact};
}

// C of row r + 1, columns [begin, end); found: room for as many exceptions as there are columns.
template <class T>
void DagFrame<T>::step(int r, int begin, int end, const T* above, T* below,
                       Exception* found) const {
  const double most = cap(r + 1);
  dag_steps<T>().step(row(r), laws_[r], above, static_cast<T>(most), begin, end, below);
  if (!has_exceptions() || !exceptions(r, begin, end, found)) return;
  for (int i = begin; i < end; ++i) {
    const Exception e = found[i];
    if (e == Exception::none) continue;
    if (e == Exception::invalid) {
      below[i] = 0;
    } else if (e == Exception::source) {
      below[i] = static_cast<T>(std::min(1.0, most));
    } else {
      DagColumn<T> column = exceptional(r, e);
      column.above = above;
      below[i] = static_cast<T>(std::min(dag_steps<T>().column(column, i), most));
    }
  }
}

template <class T>
template <class M>
void DagFrame<T>::write(int r, int begin, int end, const T* from, M* map) const {
  M* to = map + static_cast<long>(r) * p.width;
  if (map_is_c())
    for (int i = begin; i < end; ++i) to[i] = static_cast<M>(from[i]);
  else
    for (int i = begin; i < end; ++i) to[i] = static_cast<M>(from[i] * output_scale(r, i));
}

template <class T>
template <class M>
void DagFrame<T>::restore(const Team& team, const M* map) {
  const auto rows = team.share(p.height);
  for (long r = rows.begin; r < rows.end; ++r) {
    T* row = c.row(r);
    for (int i = 0; i < p.width; ++i) row[i] = static_cast<T>(map[r * p.width + i]);
    c.mirror(row, row);
  }
  team.barrier();
}

// Members split the columns, and meet after every strip of rows. Inside a strip each works on rows
// of its own: it begins with more columns than its share and needs a half width less in every row.
template <class T>
template <class M>
void DagFrame<T>::sweep(const Team& team, M* map) {
  const auto share = team.share(p.width, grain);
  const int begin = static_cast<int>(share.begin), end = static_cast<int>(share.end);
  const Block memory(2 * sizeof(T) * c.stride);
  const MarginRows<T> own{static_cast<T*>(memory.data()) + c.margin, c.stride, p.width, c.margin};
  std::vector<Exception> found(has_exceptions() ? static_cast<std::size_t>(p.width) : 0);
  const auto mirror = [&](T* row, int from, int to) {
    if (from == 0) own.mirror_left(row, row);
    if (to == p.width) own.mirror_right(row, row);
  };
  const auto share_row = [&](int r, const T* row) {
    std::copy(row + begin, row + end, c_row(r) + begin);
    if (keep_) mirror(c_row(r), begin, end);
  };
  const double source = std::min(1.0, reference(0));
  for (int i = begin; i < end; ++i) own.row(0)[i] = static_cast<T>(is_source(0, i) ? source : 0.0);
  if (map) write(0, begin, end, own.row(0), map);
  share_row(0, own.row(0));
  team.barrier();
  for (int top = 0; top + 1 < p.height; top += strip_rows) {
    const int rows = std::min(strip_rows, p.height - 1 - top);
    for (int k = 0; k <= rows; ++k) {
      const int beyond = (rows - k) * rounded(half_width, grain);
      const int from = std::max(0, begin - beyond), to = std::min(p.width, end + beyond);
      T* row = own.row(k & 1);
      if (k == 0) {
        std::copy(c_row(top) + from, c_row(top) + to, row + from);
      } else {
        step(top + k - 1, from, to, own.row(1 - (k & 1)), row, found.data());
        if (map) write(top + k, begin, end, row, map);
        // Not after the last, shorter strip: its row would take the place of the one still read.
        if (keep_ || k == strip_rows) share_row(top + k, row);
      }
      mirror(row, from, to);
    }
    team.barrier();
  }
}

FrameTeams dag_teams(const DagProblem& p, int threads) {
  const long pixels = static_cast<long>(p.height) * p.width;
  const int least = std::max(least_columns, 3 * rounded(p.half_width, grain));
  threads = std::clamp(threads, 1, most_members);
  if (p.frames * pixels < 2 * pixels_per_thread) threads = 1;
  const long most = std::min<long>(pixels / pixels_per_thread, p.width / least);
  return {p.frames, threads, static_cast<int>(std::clamp(most, 1L, static_cast<long>(threads)))};
}

template class DagFrame<float>;
template class DagFrame<double>;
#define USCONF_INSTANTIATE(T, M)                        \
  template void DagFrame<T>::sweep<M>(const Team&, M*); \
  template void DagFrame<T>::restore<M>(const Team&, const M*);
USCONF_INSTANTIATE(float, float)
USCONF_INSTANTIATE(double, float)
USCONF_INSTANTIATE(double, double)

void dag(const DagProblem& p, const DagOptions& o, void* map, void*) {
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  if (pixels == 0) return;
  const auto with = [&](auto type, auto map_type) {
    using T = decltype(type);
    using M = decltype(map_type);
    for_each_frame_of(
        dag_teams(p, o.threads), [&] { return std::make_unique<DagFrame<T>>(p, false); },
        [&](const Team& team, int i, DagFrame<T>& frame) {
          frame.prepare(team, i);
          frame.sweep(team, static_cast<M*>(map) + i * pixels);
        });
  };
  if (o.double_map)
    with(double(), double());
  else if (dag_in_double(p, o))
    with(double(), float());
  else
    with(float(), float());
}

}  // namespace usconf::cpu
