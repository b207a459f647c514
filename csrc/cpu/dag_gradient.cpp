// The DAG map's derivative on the CPU: lam runs upwards, by columns; what the edges contribute
// follows row by row; the pixels gather it.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "../kernels.h"
#include "dag.h"
#include "dag_gradient_kernels.h"
#include "frame_teams.h"

namespace usconf::cpu {
namespace {

// Loss derivatives, frame after frame. All functions but the constructor are called by every member
// of one team.
template <class T>
class DagGradient {
 public:
  using Frame = DagFrame<T>;
  using Exception = typename Frame::Exception;

  DagGradient(const DagProblem& p, bool parameters)
      : p_(p),
        frame_(p, true),
        parameters_(parameters),
        edge_((p.half_width + row_grain - 1) / row_grain * row_grain),
        memory_(sizeof(T) * 3 * frame_.f.stride * p.height),
        rows_(static_cast<std::size_t>(p.height)) {
    T* next = static_cast<T*>(memory_.data()) + frame_.f.margin;
    for (MarginRows<T>* plane : {&lam_, &own_, &carried_}) {
      *plane = frame_.f;
      plane->first = next;
      next += frame_.f.stride * p.height;
    }
  }

  double d_parameters[4] = {0, 0, 0, 0};  // of the last frame: xi, alpha, var, power

  template <class M>
  void run(const Team& team, int index, const M* map, const M* d_map, M* d_image) {
    frame_.prepare(team, index);
    if (frame_.map_is_c())
      frame_.restore(team, map);
    else
      frame_.template sweep<M>(team, nullptr);
    // What is scattered child by child, and hung2021's edges, one member sweeps alone.
    if (frame_.has_exceptions() || p_.variant != 0) {
      if (team.index == 0) sweep_alone(d_map);
    } else {
      sweep(team, d_map);
    }
    team.barrier();
    differentiate_edges(team);
    differentiate_highest(team);
    differentiate_pixels(team, d_image);
  }

 private:
  // Sums of one row; added in row order, so that the result does not depend on the team.
  struct RowSums {
    double exponent, var, power;  // of y t, of y d log g / d var, of y t ln rel
    double highest;               // by the largest D
    DagExtremes extremes;
  };

  // Makes lam of row r, columns [begin, end), of what its children passed on: 0 where C does not
  // depend on the row above.
  template <class M>
  void finish(int r, int begin, int end, const M* d_map, T* lam) const {
    const M* d = d_map + static_cast<long>(r) * p_.width;
    if (frame_.map_is_c())
      for (int i = begin; i < end; ++i) lam[i] += static_cast<T>(d[i]);
    else
      for (int i = begin; i < end; ++i)
        lam[i] += static_cast<T>(static_cast<double>(d[i]) * frame_.output_scale(r, i));
    if (frame_.has_reference()) {
      const T most = static_cast<T>(frame_.reference(r));
      for (int i = begin; i < end; ++i) lam[i] = frame_.c.row(r)[i] < most ? lam[i] : T(0);
    }
    if (!frame_.mask.first) return;
    const T* valid = frame_.mask.row(r);
    for (int i = begin; i < end; ++i)
      if (valid[i] == 0 || frame_.is_source(r, i)) lam[i] = 0;
  }

  // Adds what came to be beside the image to the columns that it mirrors. Nothing is further out
  // than R.
  void add_folded(const T* row, T* into) const {
    const int reach = p_.half_width, w = p_.width;
    for (int i = 0; i < reach; ++i) {
      const int left = i < w ? i : dag_mirror(-1 - i, w);
      into[left] += row[-1 - i];
      into[w - 1 - left] += row[w + i];
    }
  }

  // The sweep's step with parents and children exchanged: parent p has the children p + R - k, so
  // that the law's slots run backwards. (g is symmetric.)
  void pass_on(int r, const T* lam, int begin, int end, T* planes, T* out) const {
    DagLaw<T> law = frame_.law(r);
    for (int j = 0; j <= law.degree + 1; ++j) {
      const T* from = law.planes + j * frame_.slots;
      std::reverse_copy(from, from + 2 * p_.half_width + 1, planes + j * frame_.slots);
    }
    law.planes = planes;
    const DagRow<T> row{frame_.f.row(r), frame_.f.row(r + 1), 1, p_.half_width};
    dag_steps<T>().step(row, law, lam, std::numeric_limits<T>::infinity(), begin, end, out);
  }

  // Adds what came to be beside the image to the columns that it mirrors. Children are read up to
  // 2R columns beside the image, and none is there.
  void fold(T* row, bool left, bool right) const {
    const int reach = p_.half_width, w = p_.width;
    for (int i = 0; i < reach; ++i) {
      const int column = i < w ? i : dag_mirror(-1 - i, w);
      if (left) row[column] += row[-1 - i];
      if (right) row[w - 1 - column] += row[w + i];
    }
    if (left) std::fill_n(row - edge_, edge_, T(0));
    if (right) std::fill_n(row + w, edge_ + row_grain, T(0));
  }

  // Members split the columns and go upwards in strips, as in DagFrame::sweep.
  template <class M>
  void sweep(const Team& team, const M* d_map) {
    const auto share = team.share(p_.width, row_grain);
    const int begin = static_cast<int>(share.begin), end = static_cast<int>(share.end);
    const Block memory(sizeof(T) * (2 * lam_.stride + dag_planes * frame_.slots));
    std::fill_n(static_cast<T*>(memory.data()), 2 * lam_.stride, T(0));
    const MarginRows<T> own{static_cast<T*>(memory.data()) + lam_.margin, lam_.stride, p_.width,
                            lam_.margin};
    T* planes = static_cast<T*>(memory.data()) + 2 * lam_.stride;
    std::fill(lam_.row(p_.height - 1) + begin, lam_.row(p_.height - 1) + end, T(0));
    finish(p_.height - 1, begin, end, d_map, lam_.row(p_.height - 1));
    team.barrier();
    for (int bottom = p_.height - 1; bottom > 0; bottom -= strip_rows) {
      const int rows = std::min(strip_rows, bottom);
      for (int k = 0; k <= rows; ++k) {
        const int beyond = (rows - k) * edge_;
        const int from = std::max(0, begin - beyond), to = std::min(p_.width, end + beyond);
        const bool left = from == 0, right = to == p_.width;
        T* row = own.row(k & 1);
        if (k == 0) {
          std::copy(lam_.row(bottom) + from, lam_.row(bottom) + to, row + from);
          if (right) std::fill_n(row + p_.width, edge_ + row_grain, T(0));
          continue;
        }
        const int r = bottom - k;
        pass_on(r, own.row(1 - (k & 1)), left ? -edge_ : from, right ? to + edge_ : to, planes,
                row);
        fold(row, left, right);
        finish(r, from, to, d_map, row);
        std::copy(row + begin, row + end, lam_.row(r) + begin);
      }
      team.barrier();
    }
  }

  template <class M>
  void sweep_alone(const M* d_map) {
    const int w = p_.width;
    std::vector<Exception> exceptions(static_cast<std::size_t>(w));
    std::vector<T> plain(static_cast<std::size_t>(lam_.stride), T(0));
    std::vector<T> planes(static_cast<std::size_t>(dag_planes) * frame_.slots);
    std::vector<double> weight(static_cast<std::size_t>(frame_.slots)), exponent(weight);
    T* regular = plain.data() + lam_.margin;
    for (int r = 0; r < p_.height; ++r) std::fill_n(lam_.row(r) - lam_.margin, lam_.stride, T(0));
    finish(p_.height - 1, 0, w, d_map, lam_.row(p_.height - 1));
    for (int r = p_.height - 2; r >= 0; --r) {
      const T* lam = lam_.row(r + 1);
      find_exceptions(r, exceptions);
      T* out = lam_.row(r);
      if (p_.variant == 0) {
        for (int i = 0; i < w; ++i) regular[i] = exceptions[i] == Exception::none ? lam[i] : T(0);
        pass_on(r, regular, -edge_, w + edge_, planes.data(), out);
      }
      for (int i = 0; i < w; ++i) {
        if (lam[i] == 0 || (p_.variant == 0 && exceptions[i] == Exception::none)) continue;
        dag_gradient_steps<T>().weights(frame_.exceptional(r, exceptions[i]), i, weight.data(),
                                        exponent.data());
        for (int k = 0; k <= 2 * p_.half_width; ++k)
          out[i + k - p_.half_width] += static_cast<T>(weight[k] * lam[i]);
      }
      fold(out, true, true);
      finish(r, 0, w, d_map, out);
    }
  }

  void find_exceptions(int r, std::vector<Exception>& exceptions) const {
    frame_.exceptions(r, 0, p_.width, exceptions.data());
  }

  // own: by f_base; carried: by f_pad, margins included.
  void differentiate_edges(const Team& team) {
    const int w = p_.width, slots = frame_.slots;
    const long stride = lam_.stride;
    std::vector<T> scratch(static_cast<std::size_t>(stride + 2) * slots, T(0));
    std::vector<T> regular(static_cast<std::size_t>(w));
    std::vector<Exception> exceptions(static_cast<std::size_t>(w));
    std::vector<double> extra(static_cast<std::size_t>(slots));
    std::vector<DagSlotSums> sums(static_cast<std::size_t>(slots));
    std::vector<int> edges(static_cast<std::size_t>(slots));
    const auto rows = team.share(p_.height - 1);
    for (long i = rows.begin; i < rows.end; ++i) {
      const int r = static_cast<int>(i);
      rows_[r] = {};
      for (const MarginRows<T>* plane : {&own_, &carried_})
        std::fill_n(plane->row(r) - plane->margin, plane->stride, T(0));
      const T* lam = lam_.row(r + 1);
      const bool full = frame_.full(r);
      for (int k = 0; k < slots; ++k) edges[k] = frame_.edges(r, k);
      DagGradientRow<T> q{frame_.row(r),
                          frame_.law(r),
                          frame_.c.row(r),
                          lam,
                          full ? nullptr : frame_.mask.row(r + 1),
                          full ? nullptr : frame_.mask.row(r),
                          frame_.mean(r),
                          nullptr,
                          edges.data(),
                          frame_.scale(r),
                          parameters_,
                          w,
                          scratch.data() + lam_.margin,
                          stride,
                          scratch.data() + stride * slots};
      if (frame_.has_exceptions()) {
        find_exceptions(r, exceptions);
        std::fill(extra.begin(), extra.end(), 0.0);
        for (int c = 0; c < w; ++c) {
          const bool plain = exceptions[c] == Exception::none || lam[c] == 0;
          regular[c] = plain ? lam[c] : T(0);
          if (!plain) differentiate_column(r, c, exceptions[c], extra.data());
        }
        q.lam = regular.data();
        q.extra = extra.data();
      }
      dag_gradient_steps<T>().row(q, sums.data(), own_.row(r), carried_.row(r));
      for (int k = 0; k <= 2 * p_.half_width; ++k) {
        rows_[r].exponent += sums[k].exponent;
        rows_[r].power += sums[k].power;
        rows_[r].var +=
            sums[k].weight * (dag_d_log_bell(k, p_.half_width, p_.var) - frame_.beam_scale.slope);
      }
    }
    team.barrier();
  }

  // A child whose edges the row's law does not hold for.
  void differentiate_column(int r, int c, Exception e, double* extra) {
    const int reach = p_.half_width, n = 2 * reach + 1;
    std::vector<double> weight(static_cast<std::size_t>(frame_.slots)), exponent(weight);
    dag_gradient_steps<T>().weights(frame_.exceptional(r, e), c, weight.data(), exponent.data());
    const DagRow<T> row = frame_.row(r);
    const double lam = lam_.row(r + 1)[c], *mean = frame_.mean(r);
    double slope = frame_.beam_scale.slope;
    if (!frame_.full(r)) {
      std::vector<unsigned char> exists(static_cast<std::size_t>(n));
      for (int k = 0; k < n; ++k) exists[k] = frame_.mask.row(r)[c + k - reach] != 0;
      slope = dag_beam(p_.var, reach, p_.variant, exists.data()).slope;
    }
    for (int k = 0; k < n; ++k) {
      const int at = c + row.direction * (k - reach);
      const double y = lam * frame_.c.row(r)[c + k - reach] * weight[k], y_t = y * exponent[k];
      rows_[r].exponent += y_t;
      rows_[r].var += y * (dag_d_log_bell(k, reach, p_.var) - slope);
      if (e == Exception::artifact) continue;  // rel is held at 1
      const double step = static_cast<double>(row.base[c]) - static_cast<double>(row.pad[at]);
      const double d =
          e == Exception::needle ? frame_.highest : (step < 0 ? -step : step) + dag_epsilon;
      rows_[r].power += y_t * std::log(d / mean[k]);
      extra[k] += y_t;
      const double d_d = -p_.power * y_t / d;
      if (e == Exception::needle) {
        rows_[r].highest += d_d;
        continue;
      }
      const T signed_d = static_cast<T>(step < 0 ? -d_d : step > 0 ? d_d : 0.0);
      own_.row(r)[c] += signed_d;
      carried_.row(r)[at] -= signed_d;
    }
  }

  // With a needle: the largest D's derivative goes in equal shares to the edges that attain it.
  void differentiate_highest(const Team& team) {
    if (!p_.needle) return;
    if (team.index == 0) {
      double d_highest = 0;
      for (const RowSums& row : rows_) d_highest += row.highest;
      long attained = 0;
      for_highest([&](int, int, int, double) { ++attained; });
      for_highest([&](int r, int c, int at, double step) {
        const T d = static_cast<T>((step < 0 ? -d_highest : d_highest) / attained);
        if (step == 0) return;
        own_.row(r)[c] += d;
        carried_.row(r)[at] -= d;
      });
    }
    team.barrier();
  }

  // f(row, base column, pad column, difference) for the edges with the largest D.
  template <class F>
  void for_highest(F f) const {
    for (int r = 0; r + 1 < p_.height; ++r) {
      const DagRow<T> row = frame_.row(r);
      const T* child = frame_.full(r) ? nullptr : frame_.mask.row(r + 1);
      const T* parent = frame_.full(r) ? nullptr : frame_.mask.row(r);
      if (dag_steps<T>().largest(row, child, parent, p_.width) + dag_epsilon != frame_.highest)
        continue;
      for (int k = -p_.half_width; k <= p_.half_width; ++k)
        for (int c = 0; c < p_.width; ++c) {
          const int at = c + row.direction * k;
          if (child && (child[c] == 0 || parent[at] == 0)) continue;
          const T step = row.base[c] - row.pad[at];
          if (static_cast<double>(step < 0 ? -step : step) + dag_epsilon == frame_.highest)
            f(r, c, at, static_cast<double>(step));
        }
    }
  }

  // dLoss/df of row r: variant 0 compares row r as a pad with r + 1 and as a base with r - 1;
  // variant 1 the other way round, and what is beside the image belongs to another row.
  void gather(long r, T* d_f) {
    const int w = p_.width;
    const long base = p_.variant == 0 ? r - 1 : r, pad = p_.variant == 0 ? r : r - 1;
    const T* from_base = base >= 0 && base + 1 < p_.height ? own_.row(base) : nullptr;
    const T* from_pad = pad >= 0 && pad + 1 < p_.height ? carried_.row(pad) : nullptr;
    if (from_base && from_pad)
      std::transform(from_base, from_base + w, from_pad, d_f, std::plus<T>());
    else if (from_base || from_pad)
      std::copy_n(from_base ? from_base : from_pad, w, d_f);
    else
      std::fill_n(d_f, w, T(0));
    const long beside = p_.variant == 0 ? r : p_.height - 1 - r;
    if (beside >= 0 && beside + 1 < p_.height) add_folded(carried_.row(beside), d_f);
  }

  // f = (image - low) factor, low and high being attained by all pixels that equal them.
  template <class M>
  void differentiate_pixels(const Team& team, M* d_image) {
    const int w = p_.width;
    const auto rows = team.share(p_.height);
    const T top = static_cast<T>((frame_.high - frame_.low) * frame_.factor);
    const auto valid = [&](long r) { return frame_.mask.first ? frame_.mask.row(r) : nullptr; };
    for (long r = rows.begin; r < rows.end; ++r) {
      T* d_f = lam_.row(r);  // which is done with
      gather(r, d_f);
      if (p_.normalise)
        rows_[r].extremes =
            dag_gradient_steps<T>().extremes(frame_.f.row(r), d_f, valid(r), w, top);
    }
    team.barrier();
    if (team.index == 0) sum_parameters();
    DagExtremes all{};
    for (const RowSums& row : rows_) {
      all.low += row.extremes.low;
      all.high += row.extremes.high;
      all.lows += row.extremes.lows;
      all.highs += row.extremes.highs;
    }
    const double scale = frame_.factor;
    const double at_low = all.lows ? all.low * scale / all.lows : 0;
    const double at_high = all.highs ? all.high * scale / all.highs : 0;
    for (long r = rows.begin; d_image && r < rows.end; ++r) {
      T* d = lam_.row(r);
      dag_gradient_steps<T>().pixels(frame_.f.row(r), valid(r), w, top, scale, at_low, at_high, d);
      std::copy_n(d, w, d_image + r * w);
    }
    team.barrier();
  }

  void sum_parameters() {
    const DagDecay decay = dag_decay(p_.xi, p_.alpha, p_.height);
    std::fill_n(d_parameters, 4, 0.0);
    double d_x = 0;
    for (int r = 0; r + 1 < p_.height; ++r) {
      const double d_scale = -rows_[r].exponent / frame_.scale(r);
      const double depth = dag_depth(p_.alpha, r, p_.height);
      d_x += d_scale * depth;
      d_parameters[1] -= d_scale * decay.x * dag_reach(r, p_.height) * depth;
      d_parameters[2] += rows_[r].var;
      d_parameters[3] -= rows_[r].power;
    }
    d_parameters[0] = d_x * decay.d_xi;
    d_parameters[1] += d_x * decay.d_alpha;
  }

  const DagProblem& p_;
  Frame frame_;
  const bool parameters_;
  const int edge_;
  const Block memory_;
  MarginRows<T> lam_, own_, carried_;
  std::vector<RowSums> rows_;
};

}  // namespace

void dag_backward(const DagProblem& p, const DagOptions& o, const void* map, const void* d_map,
                  void* d_image, double* d_parameters, void*) {
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  std::vector<double> by_frame(4 * static_cast<std::size_t>(p.frames));
  const auto with = [&](auto type, auto map_type) {
    using T = decltype(type);
    using M = decltype(map_type);
    for_each_frame_of(
        dag_teams(p, o.threads),
        [&] { return std::make_unique<DagGradient<T>>(p, d_parameters != nullptr); },
        [&](const Team& team, int i, DagGradient<T>& gradient) {
          gradient.run(team, i, static_cast<const M*>(map) + i * pixels,
                       static_cast<const M*>(d_map) + i * pixels,
                       d_image ? static_cast<M*>(d_image) + i * pixels : nullptr);
          if (team.index == 0) std::copy_n(gradient.d_parameters, 4, &by_frame[4 * i]);
        });
  };
  if (pixels > 0) {
    if (o.double_map)
      with(double(), double());
    else if (dag_in_double(p, o))
      with(double(), float());
    else
      with(float(), float());
  }
  if (!d_parameters) return;
  std::fill_n(d_parameters, 4, 0.0);
  for (std::size_t i = 0; i < by_frame.size(); ++i) d_parameters[i % 4] += by_frame[i];
}

}  // namespace usconf::cpu
