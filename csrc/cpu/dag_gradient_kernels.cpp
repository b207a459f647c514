#include "dag_gradient_kernels.h"

#include "../math/logarithm.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// Leaves power y t / D of slot k, which is -d_rel / mean, in out.
template <class T, int Degree, bool Plain, bool Powers>
USCONF_INLINE DagSlotSums slot_weights(const DagGradientRow<T>& q, int k, T* __restrict out) {
  const int n = q.law.slots, r = q.row.half_width, columns = q.n;
  const T* __restrict base = q.row.base;
  const T* __restrict pad = q.row.pad + q.row.direction * (k - r);
  const T* __restrict parent = q.above + (k - r);
  const T* __restrict lam = q.lam;
  T p[Degree + 1];
  for (int j = 0; j <= Degree; ++j) p[j] = q.law.planes[j * n + k];
  // The law itself may hold something else here.
  const T offset =
      static_cast<T>(Plain ? q.scale / q.mean[k]
                           : log2_positive(q.scale) - q.law.power * log2_positive(q.mean[k]));
  const T power = q.law.power, inverse_mean = T(1 / q.mean[k]);
  T exponent = 0, weight = 0, powers = 0;
#pragma omp simd reduction(+ : exponent, weight, powers)
  for (int i = 0; i < columns; ++i) {
    const T d = dag_difference(base[i], pad[i]);
    const T t = Plain ? offset * d : exp2_bounded(power * log2_positive(d) + offset);
    // A plain law's polynomial is one in D - 1e-4.
    const T at = Plain && Degree > 0 ? d - T(dag_epsilon) : t;
    T w = p[Degree];
    if constexpr (Degree == 0) {
      w *= exp_nonpositive(-t);
    } else {
      USCONF_UNROLL
      for (int j = Degree - 1; j >= 0; --j) w = w * at + p[j];
    }
    const T y = lam[i] * parent[i] * w;
    const T y_t = y * t;
    exponent += y_t;
    weight += y;
    if (Powers) powers += y_t * log_positive(d * inverse_mean);
    out[i] = Plain ? y * offset : power * y_t / d;
  }
  return {static_cast<double>(exponent), static_cast<double>(weight), static_cast<double>(powers)};
}

// From what slot_weights left to dLoss/du, u = f_base - f_pad, in place.
template <bool Masked, class T>
USCONF_INLINE void slot_derivatives(const DagGradientRow<T>& q, int k, T through_mean,
                                    T* __restrict d) {
  const int shift = q.row.direction * (k - q.row.half_width), n = q.n;
  const T* __restrict base = q.row.base;
  const T* __restrict pad = q.row.pad + shift;
#pragma omp simd
  for (int i = 0; i < n; ++i) {
    const T u = base[i] - pad[i];
    T v = std::copysign(T(1), u) * (through_mean - d[i]);
    if (Masked) v *= q.valid_base[i] * q.valid_pad[i + shift];
    d[i] = u == 0 ? T(0) : v;
  }
}

// to[c] += sign * sum over slots k of derivatives of column c - k * shift, c in [begin, end)
template <class T>
USCONF_INLINE void add_slots(const DagGradientRow<T>& q, int shift, T sign, int begin, int end,
                             T* to) {
  constexpr int size = sizeof(Vec) / sizeof(T), together = 4;
  typedef T V __attribute__((vector_size(sizeof(Vec))));
  typedef T U __attribute__((vector_size(sizeof(Vec)), aligned(sizeof(T))));
  const int r = q.row.half_width;
  const long step = q.scratch_stride - shift;
  int c = begin;
  for (; c + together * size <= end; c += together * size) {
    V sum[together] = {};
    const T* from = q.scratch + c + shift * r;
    for (int k = 0; k <= 2 * r; ++k, from += step) {
      USCONF_UNROLL
      for (int j = 0; j < together; ++j) sum[j] += *reinterpret_cast<const U*>(from + j * size);
    }
    USCONF_UNROLL
    for (int j = 0; j < together; ++j) {
      U* out = reinterpret_cast<U*>(to + c + j * size);
      *out = *out + sign * sum[j];
    }
  }
  for (; c < end; ++c) {
    T sum = 0;
    const T* from = q.scratch + c + shift * r;
    for (int k = 0; k <= 2 * r; ++k, from += step) sum += *from;
    to[c] += sign * sum;
  }
}

template <class T, int Degree, bool Plain>
void row_of(const DagGradientRow<T>& given, DagSlotSums* sums, T* d_base, T* d_pad) {
  const DagGradientRow<T> q = given;
  const int r = q.row.half_width;
  for (int k = 0; k <= 2 * r; ++k) {
    T* d = q.scratch + k * q.scratch_stride;
    sums[k] = q.powers ? slot_weights<T, Degree, Plain, true>(q, k, d)
                       : slot_weights<T, Degree, Plain, false>(q, k, d);
    const int edges = q.edges ? q.edges[k] : q.n;
    const double all = sums[k].exponent + (q.extra ? q.extra[k] : 0.0);
    const T through_mean =
        static_cast<T>(edges ? static_cast<double>(q.law.power) * all / (q.mean[k] * edges) : 0.0);
    q.valid_base ? slot_derivatives<true>(q, k, through_mean, d)
                 : slot_derivatives<false>(q, k, through_mean, d);
  }
  add_slots(q, 0, T(1), 0, q.n, d_base);
  add_slots(q, q.row.direction, T(-1), -r, q.n + r, d_pad);
}

void row_float(const DagGradientRow<float>& q, DagSlotSums* sums, float* d_base, float* d_pad) {
  using Row = void (*)(const DagGradientRow<float>&, DagSlotSums*, float*, float*);
  constexpr Row plain[] = {row_of<float, 0, true>,
                           nullptr,
                           nullptr,
                           row_of<float, 3, true>,
                           row_of<float, 4, true>,
                           row_of<float, 5, true>,
                           row_of<float, 6, true>,
                           row_of<float, 7, true>,
                           row_of<float, 8, true>};
  constexpr Row general[] = {row_of<float, 0, false>,
                             nullptr,
                             nullptr,
                             row_of<float, 3, false>,
                             row_of<float, 4, false>,
                             row_of<float, 5, false>,
                             row_of<float, 6, false>,
                             row_of<float, 7, false>,
                             row_of<float, 8, false>};
  (q.law.power == 1 ? plain : general)[q.law.degree](q, sums, d_base, d_pad);
}

void row_double(const DagGradientRow<double>& q, DagSlotSums* sums, double* d_base, double* d_pad) {
  (q.law.power == 1 ? row_of<double, 0, true> : row_of<double, 0, false>)(q, sums, d_base, d_pad);
}

template <class T>
void weights(const DagColumn<T>& q, int c, double* w, double* t) {
  const int r = q.row.half_width, direction = q.row.direction;
  const T* pad = q.row.pad + c - direction * r;
  const T* valid = q.valid_above ? q.valid_above + c - r : nullptr;
  const double base = q.row.base[c];
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int k = 0; k <= 2 * r; ++k) {
    double d = dag_difference(base, static_cast<double>(pad[direction * k]));
    d = q.rel_numerator > 0 ? q.rel_numerator : d;
    const double rel = q.artifact ? 1.0 : d / q.mean[k];
    t[k] = q.scale * (q.power == 1 ? rel : power_positive(rel, q.power));
    const double g = q.bell[k] * (valid ? static_cast<double>(valid[k]) : 1.0);
    w[k] = g * exp_nonpositive(-t[k]);
    total += g;
  }
  const double by = valid ? (total > 0 ? 1.0 / total : 0.0) : q.bell_scale;
  for (int k = 0; k <= 2 * r; ++k) w[k] *= by;
}

template <class T>
DagExtremes extremes(const T* f, const T* d_f, const T* valid, int n, T top) {
  double low = 0, high = 0;
  int lows = 0, highs = 0;
  if (valid) {
    for (int i = 0; i < n; ++i) {
      if (valid[i] == 0) continue;
      low += static_cast<double>(d_f[i]) * (static_cast<double>(f[i]) - 1);
      high -= static_cast<double>(d_f[i]) * static_cast<double>(f[i]);
      lows += f[i] == 0;
      highs += f[i] == top;
    }
    return {low, high, lows, highs};
  }
#pragma omp simd reduction(+ : low, high, lows, highs)
  for (int i = 0; i < n; ++i) {
    low += static_cast<double>(d_f[i]) * (static_cast<double>(f[i]) - 1);
    high -= static_cast<double>(d_f[i]) * static_cast<double>(f[i]);
    lows += f[i] == 0 ? 1 : 0;
    highs += f[i] == top ? 1 : 0;
  }
  return {low, high, lows, highs};
}

template <class T>
void pixels(const T* f, const T* valid, int n, T top, double scale, double at_low, double at_high,
            T* d) {
#pragma omp simd
  for (int i = 0; i < n; ++i) {
    double v = static_cast<double>(d[i]) * scale;
    v += f[i] == 0 ? at_low : 0.0;
    v += f[i] == top ? at_high : 0.0;
    d[i] = static_cast<T>(v);
  }
  if (!valid) return;
  for (int i = 0; i < n; ++i) d[i] = valid[i] == 0 ? T(0) : d[i];
}

constexpr DagGradientKernels table = {
    {extremes<float>, pixels<float>, row_float, weights<float>},
    {extremes<double>, pixels<double>, row_double, weights<double>}};

}  // namespace

const DagGradientKernels& dag_gradient_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
