#include "dag_gradient_kernels.h"

#include <type_traits>

#include "../math/logarithm.h"
#include "dag_powers.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// What through_mean is of slot k: by the mean of D, which all edges of the slot share.
template <class T>
USCONF_INLINE T by_mean(const DagGradientRow<T>& q, int k, double exponent) {
  const int edges = q.edges ? q.edges[k] : q.n;
  const double all = exponent + (q.extra ? q.extra[k] : 0.0);
  return static_cast<T>(edges ? static_cast<double>(q.law.power) * all / (q.mean[k] * edges) : 0.0);
}

// Leaves power y t / D of slot k, which is -d_rel / mean, in out.
template <class T, int Degree, bool Plain, bool Parameters>
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
    if (Parameters) {
      weight += y;
      powers += y_t * log_positive(d * inverse_mean);
    }
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
    sums[k] = q.parameters ? slot_weights<T, Degree, Plain, true>(q, k, d)
                           : slot_weights<T, Degree, Plain, false>(q, k, d);
    const T through_mean = by_mean(q, k, sums[k].exponent);
    q.valid_base ? slot_derivatives<true>(q, k, through_mean, d)
                 : slot_derivatives<false>(q, k, through_mean, d);
  }
  add_slots(q, 0, T(1), 0, q.n, d_base);
  add_slots(q, q.row.direction, T(-1), -r, q.n + r, d_pad);
}

// The same for a law that is a polynomial, in vectors. y t = offset y e and power y t / D = slope y
// g with e = D, g = 1 for power 1 and e = D^power, g = e / D else: y g is left in out.
template <int Degree, class Power, bool Parameters>
USCONF_INLINE DagSlotSums vector_weights(const DagGradientRow<float>& q,
                                         [[maybe_unused]] const Power& power, Vec last_lam, int k,
                                         float offset, float* __restrict out) {
  constexpr bool plain = std::is_same_v<Power, PowerOne>;
  const int n = q.law.slots, shift = q.row.direction * (k - q.row.half_width);
  const float* __restrict base = q.row.base;
  const float* __restrict pad = q.row.pad + shift;
  const float* __restrict parent = q.above + (k - q.row.half_width);
  const float* __restrict lam = q.lam;
  Vec p[Degree + 1];
  for (int j = 0; j <= Degree; ++j) p[j] = splat(q.law.planes[j * n + k]);
  Vec exponent = {}, weight = {};
  for (int c = 0; c < q.n; c += lanes) {
    const Vec l = c + lanes <= q.n ? load_unaligned(lam + c) : last_lam;
    const Vec u = absolute(load_unaligned(base + c) - load_unaligned(pad + c));
    const Vec d = u + static_cast<float>(dag_epsilon);
    Vec e = d, at = u;
    if constexpr (!plain) {
      e = power(d);
      at = e * offset;
    }
    Vec w = p[Degree];
    USCONF_UNROLL
    for (int j = Degree - 1; j >= 0; --j) w = w * at + p[j];
    const Vec y = l * load_unaligned(parent + c) * w;
    const Vec y_e = y * e;
    exponent += y_e;
    if (Parameters) weight += y;
    *reinterpret_cast<Related<Vec>::Unaligned*>(out + c) = plain ? y : y_e / d;
  }
  double powers = 0;
  if (Parameters) {
    const float inverse_mean = static_cast<float>(1 / q.mean[k]);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < q.n; ++i) {
      const float d = dag_difference(base[i], pad[i]);
      sum += out[i] * d * log_positive(d * inverse_mean);
    }
    powers = offset * static_cast<double>(sum);
  }
  return {offset * static_cast<double>(total_of<float>(exponent)),
          static_cast<double>(total_of<float>(weight)), powers};
}

// From what vector_weights left to dLoss/du of all slots; their sum goes to d_base.
template <bool Masked>
USCONF_INLINE void vector_derivatives(const DagGradientRow<float>& q, float* d_base) {
  const int r = q.row.half_width;
  const float *through_mean = q.by_slot, *slope = q.by_slot + q.law.slots;
  for (int c = 0; c < q.n; c += lanes) {
    IntVec inside = IntVec{} - 1;
    if (c + lanes > q.n)
      for (int j = 0; j < lanes; ++j) inside[j] = c + j < q.n ? -1 : 0;
    const Vec base = load_unaligned(q.row.base + c);
    const float* pad = q.row.pad - q.row.direction * r + c;
    float* out = q.scratch + c;
    Vec sum = {};
    for (int k = 0; k <= 2 * r; ++k, pad += q.row.direction, out += q.scratch_stride) {
      const Vec u = base - load_unaligned(pad);
      Vec v = through_mean[k] - slope[k] * load_unaligned(out);
      v = (Vec)((IntVec)v ^ ((IntVec)u & ~0x7fffffff));
      v = u != 0 ? v : Vec{};
      if (Masked)
        v *= load_unaligned(q.valid_base + c) *
             load_unaligned(q.valid_pad + q.row.direction * (k - r) + c);
      v = (Vec)((IntVec)v & inside);
      *reinterpret_cast<Related<Vec>::Unaligned*>(out) = v;
      sum += v;
    }
    *reinterpret_cast<Related<Vec>::Unaligned*>(d_base + c) = load_unaligned(d_base + c) + sum;
  }
}

template <int Degree, class Power>
void vector_row(const DagGradientRow<float>& given, DagSlotSums* sums, float* d_base,
                float* d_pad) {
  const DagGradientRow<float> q = given;
  const Power power(q.law.raise);
  Vec last_lam = {};
  for (int i = q.n / lanes * lanes; i < q.n; ++i) last_lam[i % lanes] = q.lam[i];
  for (int k = 0; k <= 2 * q.row.half_width; ++k) {
    const float offset = std::is_same_v<Power, PowerOne>
                             ? static_cast<float>(q.scale / q.mean[k])
                             : q.law.planes[(Degree + 1) * q.law.slots + k];
    float* out = q.scratch + k * q.scratch_stride;
    sums[k] = q.parameters
                  ? vector_weights<Degree, Power, true>(q, power, last_lam, k, offset, out)
                  : vector_weights<Degree, Power, false>(q, power, last_lam, k, offset, out);
    q.by_slot[k] = by_mean(q, k, sums[k].exponent);
    q.by_slot[q.law.slots + k] = q.law.power * offset;
  }
  q.valid_base ? vector_derivatives<true>(q, d_base) : vector_derivatives<false>(q, d_base);
  add_slots(q, q.row.direction, -1.0f, -q.row.half_width, q.n + q.row.half_width, d_pad);
}

void row_float(const DagGradientRow<float>& q, DagSlotSums* sums, float* d_base, float* d_pad) {
  using Row = void (*)(const DagGradientRow<float>&, DagSlotSums*, float*, float*);
  constexpr Row plain[] = {row_of<float, 0, true>,
                           nullptr,
                           nullptr,
                           vector_row<3, PowerOne>,
                           vector_row<4, PowerOne>,
                           vector_row<5, PowerOne>,
                           vector_row<6, PowerOne>,
                           vector_row<7, PowerOne>,
                           vector_row<8, PowerOne>};
  constexpr Row raised[] = {nullptr,
                            nullptr,
                            nullptr,
                            vector_row<3, Raise>,
                            vector_row<4, Raise>,
                            vector_row<5, Raise>,
                            vector_row<6, Raise>,
                            vector_row<7, Raise>,
                            vector_row<8, Raise>};
  constexpr Row general[] = {row_of<float, 0, false>,
                             nullptr,
                             nullptr,
                             row_of<float, 3, false>,
                             row_of<float, 4, false>,
                             row_of<float, 5, false>,
                             row_of<float, 6, false>,
                             row_of<float, 7, false>,
                             row_of<float, 8, false>};
  (q.law.power == 1 ? plain : q.law.raise ? raised : general)[q.law.degree](q, sums, d_base, d_pad);
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
