#include "dag_kernels.h"

#include <type_traits>

#include "../math/logarithm.h"
#include "dag_powers.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// exp(-t) on [0, reach] by degree. Minimax for (1 - exp(-t)) / t, whose error is 4e-7: as the error
// of a weight is then a share of its t, a path from the source to a pixel, along which
// C = exp(-sum t), errs by 4e-7 C ln(1/C) <= 1.5e-7 however many rows it has.
struct Polynomial {
  double reach;
  double p[dag_largest_degree + 1];
};
constexpr Polynomial polynomials[] = {
    {0.068, {1, -0.999999601555, 0.499894046373, -0.162485630586}},
    {0.2884, {1, -0.999999600193, 0.49995509908, -0.165876875967, 0.0371755746425}},
    {0.7247,
     {1, -0.999999600274, 0.49997183851, -0.166348394613, 0.0403953344916, -0.00620291136635}},
    {1.3982,
     {1, -0.99999960017, 0.4999787911, -0.166483905642, 0.0410854591255, -0.00747988519678,
      0.000778951007085}},
    {2.3123,
     {1, -0.999999600125, 0.499982401333, -0.166539900779, 0.0413213956872, -0.0078775080051,
      0.00106813179805, -7.57717961238e-05}},
    {3.4642,
     {1, -0.999999600043, 0.499984542202, -0.166568422727, 0.0414269818243, -0.00804174697934,
      0.00119054686391, -0.000119107327475, 5.85452810864e-06}},
};

// Vectors of columns that share a slot's coefficients: as many as registers allow.
constexpr int together = lanes == 16 ? 4 : 2;

// A float sum over more columns than this loses digits.
constexpr int exact_columns = 2048;

// Of S neighbouring slots, which share what the base loads: the sum over n columns.
template <int S>
USCONF_INLINE void slot_sums(const float* base, const float* pad, int step, int n, double* out) {
  for (int s = 0; s < S; ++s) out[s] = 0;
  for (int from = 0; from < n; from += exact_columns) {
    const int to = n - from < exact_columns ? n : from + exact_columns;
    Vec sum[S] = {};
    int c = from;
    for (; c + lanes <= to; c += lanes) {
      const Vec b = load_unaligned(base + c);
      USCONF_UNROLL
      for (int s = 0; s < S; ++s) sum[s] += absolute(b - load_unaligned(pad + s * step + c));
    }
    for (int s = 0; s < S; ++s) {
      float part = total_of<float>(sum[s]);
      for (int i = c; i < to; ++i) part += __builtin_fabsf(base[i] - pad[s * step + i]);
      out[s] += part;
    }
  }
}

void row_sums(const DagRow<float>& row, int n, double* out) {
  constexpr int together = lanes == 16 ? 8 : 4;
  const int slots = 2 * row.half_width + 1, step = row.direction;
  const float* pad = row.pad - step * row.half_width;
  int k = 0;
  for (; k + together <= slots; k += together)
    slot_sums<together>(row.base, pad + step * k, step, n, out + k);
  for (; k + 4 <= slots; k += 4) slot_sums<4>(row.base, pad + step * k, step, n, out + k);
  for (; k < slots; ++k) slot_sums<1>(row.base, pad + step * k, step, n, out + k);
}

void row_sums(const DagRow<double>& row, int n, double* out) {
  const int r = row.half_width;
  for (int k = 0; k <= 2 * r; ++k) {
    const double *base = row.base, *pad = row.pad + row.direction * (k - r);
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int c = 0; c < n; ++c) total += __builtin_fabs(base[c] - pad[c]);
    out[k] = total;
  }
}

template <class T>
void masked_sums(const DagRow<T>& row, const T* valid_base, const T* valid_pad, int n, double* out,
                 int* edges) {
  const int r = row.half_width;
  for (int k = 0; k <= 2 * r; ++k) {
    const int shift = row.direction * (k - r);
    const T *pad = row.pad + shift, *valid = valid_pad + shift;
    double total = 0, count = 0;
#pragma omp simd reduction(+ : total, count)
    for (int c = 0; c < n; ++c) {
      const T exists = valid_base[c] * valid[c];
      const T u = row.base[c] - pad[c];
      total += exists * (u < 0 ? -u : u);
      count += exists;
    }
    out[k] = total;
    edges[k] = static_cast<int>(count);
  }
}

template <class T>
double largest(const DagRow<T>& row, const T* valid_base, const T* valid_pad, int n) {
  const int r = row.half_width;
  T found = -1;
  for (int k = 0; k <= 2 * r; ++k) {
    const int shift = row.direction * (k - r);
    for (int c = 0; c < n; ++c) {
      if (valid_base && (valid_base[c] == 0 || valid_pad[c + shift] == 0)) continue;
      const T u = row.base[c] - row.pad[c + shift];
      const T d = u < 0 ? -u : u;
      found = d > found ? d : found;
    }
  }
  return found;
}

int degree_for(double t) {
  for (int d = dag_least_degree; d <= dag_largest_degree; ++d)
    if (t <= polynomials[d - dag_least_degree].reach) return d;
  return 0;
}

// T = float: a polynomial where there is one for the largest t.
template <class T>
void law(const DagLawInput& in, T* planes, DagLaw<T>* out) {
  const int n = in.slots;
  const bool plain = in.power == 1;
  double least = in.mean[0];
#pragma omp simd reduction(min : least)
  for (int k = 0; k < n; ++k) least = in.mean[k] < least ? in.mean[k] : least;
  const double most = in.reach / least;
  const double t = in.scale * (plain ? most : power_positive(most, in.power));
  const int degree = sizeof(T) == 4 ? degree_for(t) : 0;
  // Both factors of t stay well within float.
  const bool raise = in.raise && degree > 0 && in.reach < 4 &&
                     in.scale * power_positive(1 / least, in.power) < 1e30;
  if (!raise) out->raise = nullptr;
  const double log_scale = plain ? 0 : log2_positive(in.scale > 1e-300 ? in.scale : 1e-300);
  double lost = 0;
  T* offset = planes + (degree + 1) * n;
  if (!plain)
#pragma omp simd
    for (int k = 0; k < n; ++k) {
      const double logarithm = log_scale - in.power * log2_positive(in.mean[k]);
      offset[k] = static_cast<T>(raise ? exp2_bounded(logarithm) : logarithm);
    }
  if (degree == 0 || !plain) {
    const double* p = degree ? polynomials[degree - dag_least_degree].p : nullptr;
#pragma omp simd reduction(+ : lost)
    for (int k = 0; k < n; ++k) {
      planes[k] = static_cast<T>(in.beam[k]);
      lost += in.beam[k] - static_cast<double>(planes[k]);
    }
    for (int j = 1; j <= degree; ++j)
      for (int k = 0; k < n; ++k) planes[j * n + k] = static_cast<T>(in.beam[k] * p[j]);
    if (plain)
      for (int k = 0; k < n; ++k) planes[n + k] = static_cast<T>(in.scale / in.mean[k]);
  } else {
    const double* p = polynomials[degree - dag_least_degree].p;
#pragma omp simd reduction(+ : lost)
    for (int k = 0; k < n; ++k) {
      const double slope = in.scale / in.mean[k];
      double c = in.beam[k] * exp_nonpositive(-dag_epsilon * slope);
      planes[k] = static_cast<T>(c);
      lost += c - static_cast<double>(planes[k]);
      for (int j = 1; j <= dag_largest_degree; ++j) {
        c *= slope;
        if (j <= degree) planes[j * n + k] = static_cast<T>(c * p[j]);
      }
    }
  }
  out->degree = degree;
  out->residual = static_cast<T>(lost);
  out->power = static_cast<T>(in.power);
}

// N vectors of columns.
template <int Degree, class Power, int N>
USCONF_INLINE void columns_of(const DagRow<float>& row, const DagLaw<float>& law,
                              [[maybe_unused]] const Power& power, const float* above, float cap,
                              int c, float* below) {
  const int r = row.half_width, n = law.slots;
  const float* pad = row.pad + c - row.direction * r;
  const float* from = above + c - r;
  Vec base[N], sum[N];
  USCONF_UNROLL
  for (int j = 0; j < N; ++j) {
    base[j] = load_unaligned(row.base + c + j * lanes);
    sum[j] = law.residual * load_unaligned(above + c + j * lanes);
  }
  const float* planes = law.planes;
  for (int k = 0; k <= 2 * r; ++k, pad += row.direction, ++from, ++planes) {
    Vec u[N], w[N];  // u: what the polynomial is in
    const Vec top = splat(planes[Degree * n]);
    USCONF_UNROLL
    for (int j = 0; j < N; ++j) {
      u[j] = absolute(base[j] - load_unaligned(pad + j * lanes));
      if constexpr (std::is_same_v<Power, Raise>)
        u[j] = power(u[j] + static_cast<float>(dag_epsilon)) * planes[(Degree + 1) * n];
      w[j] = top;
    }
    USCONF_UNROLL
    for (int i = Degree - 1; i >= 0; --i) {
      const Vec p = splat(planes[i * n]);
      USCONF_UNROLL
      for (int j = 0; j < N; ++j) w[j] = w[j] * u[j] + p;
    }
    USCONF_UNROLL
    for (int j = 0; j < N; ++j) sum[j] += w[j] * load_unaligned(from + j * lanes);
  }
  const Vec most = splat(cap);
  USCONF_UNROLL
  for (int j = 0; j < N; ++j) {
    const Vec capped = sum[j] < most ? sum[j] : most;
    *reinterpret_cast<Related<Vec>::Unaligned*>(below + c + j * lanes) = capped;
  }
}

template <int Degree, class Power>
void vector_step(const DagRow<float>& row, const DagLaw<float>& law, const float* above, float cap,
                 int begin, int end, float* below) {
  const Power power(law.raise);
  int c = begin;
  for (; c + together * lanes <= end; c += together * lanes)
    columns_of<Degree, Power, together>(row, law, power, above, cap, c, below);
  for (; c < end; c += lanes) columns_of<Degree, Power, 1>(row, law, power, above, cap, c, below);
}

template <class T>
bool raise(double power, T* table) {
  if (sizeof(T) != sizeof(float) || lanes < 8) return false;
  constexpr int n = dag_raise_degree + 1;
  constexpr double pi = 3.14159265358979323846;
  // Newton's interpolation of (1.5 + z)^power at Chebyshev's nodes, then powers of z.
  double z[n], c[n], p[n] = {};
  for (int i = 0; i < n; ++i) {
    z[i] = 0.5 * __builtin_cos(pi * (i + 0.5) / n);
    c[i] = power_positive(1.5 + z[i], power);
  }
  for (int j = 1; j < n; ++j)
    for (int i = n - 1; i >= j; --i) c[i] = (c[i] - c[i - 1]) / (z[i] - z[i - j]);
  for (int i = n - 1; i >= 0; --i) {
    for (int j = n - 1; j > 0; --j) p[j] = p[j - 1] - z[i] * p[j];
    p[0] = c[i] - z[i] * p[0];
  }
  for (int i = 0; i <= 64; ++i) {
    const double at = i / 64.0 - 0.5, exact = power_positive(1.5 + at, power);
    double value = 0;
    for (int j = n - 1; j >= 0; --j) value = value * at + p[j];
    // Of t, as little as rounding.
    if (!(__builtin_fabs(value - exact) < 1e-7 * exact)) return false;
  }
  for (int j = 0; j < n; ++j) table[dag_octaves + j] = static_cast<T>(p[j]);
  for (int e = 0; e < dag_octaves; ++e)
    table[e] = static_cast<T>(exp2_bounded(power * (e + dag_first_octave)));
  return true;
}

// Any power, any type; Degree 0: in full.
template <class T, int Degree, bool Plain>
void general_step(const DagRow<T>& row, const DagLaw<T>& law, const T* above, T cap, int begin,
                  int end, T* below) {
  constexpr int block = 4 * lanes;
  const int r = row.half_width, n = law.slots;
  const T power = law.power;
  for (int from = begin; from < end; from += block) {
    T sum[block], base[block];
    const int columns = end - from < block ? (end - from + lanes - 1) / lanes * lanes : block;
    for (int i = 0; i < columns; ++i) {
      base[i] = row.base[from + i];
      sum[i] = law.residual * above[from + i];
    }
    for (int k = 0; k <= 2 * r; ++k) {
      const T* pad = row.pad + from + row.direction * (k - r);
      const T* parent = above + from + k - r;
      const T* planes = law.planes + k;
      T p[Degree + 1];
      USCONF_UNROLL
      for (int j = 0; j <= Degree; ++j) p[j] = planes[j * n];
      const T offset = planes[(Degree + 1) * n];
#pragma omp simd
      for (int i = 0; i < columns; ++i) {
        const T d = dag_difference(base[i], pad[i]);
        const T t = Plain ? offset * d : exp2_bounded(power * log2_positive(d) + offset);
        T w = p[Degree];
        if constexpr (Degree == 0) {
          w *= exp_nonpositive(-t);
        } else {
          USCONF_UNROLL
          for (int j = Degree - 1; j >= 0; --j) w = w * t + p[j];
        }
        sum[i] += w * parent[i];
      }
    }
    for (int i = 0; i < columns; ++i) below[from + i] = sum[i] < cap ? sum[i] : cap;
  }
}

void step_float(const DagRow<float>& row, const DagLaw<float>& law, const float* above, float cap,
                int begin, int end, float* below) {
  using Step =
      void (*)(const DagRow<float>&, const DagLaw<float>&, const float*, float, int, int, float*);
  constexpr Step plain[] = {general_step<float, 0, true>,
                            nullptr,
                            nullptr,
                            vector_step<3, PowerOne>,
                            vector_step<4, PowerOne>,
                            vector_step<5, PowerOne>,
                            vector_step<6, PowerOne>,
                            vector_step<7, PowerOne>,
                            vector_step<8, PowerOne>};
  constexpr Step raised[] = {nullptr,
                             nullptr,
                             nullptr,
                             vector_step<3, Raise>,
                             vector_step<4, Raise>,
                             vector_step<5, Raise>,
                             vector_step<6, Raise>,
                             vector_step<7, Raise>,
                             vector_step<8, Raise>};
  constexpr Step general[] = {general_step<float, 0, false>,
                              nullptr,
                              nullptr,
                              general_step<float, 3, false>,
                              general_step<float, 4, false>,
                              general_step<float, 5, false>,
                              general_step<float, 6, false>,
                              general_step<float, 7, false>,
                              general_step<float, 8, false>};
  (law.power == 1 ? plain
   : law.raise    ? raised
                  : general)[law.degree](row, law, above, cap, begin, end, below);
}

void step_double(const DagRow<double>& row, const DagLaw<double>& law, const double* above,
                 double cap, int begin, int end, double* below) {
  (law.power == 1 ? general_step<double, 0, true>
                  : general_step<double, 0, false>)(row, law, above, cap, begin, end, below);
}

template <class T>
double column(const DagColumn<T>& q, int c) {
  const int r = q.row.half_width, direction = q.row.direction;
  const T* pad = q.row.pad + c - direction * r;
  const T* above = q.above + c - r;
  const T* valid = q.valid_above ? q.valid_above + c - r : nullptr;
  const double base = q.row.base[c];
  double sum = 0, total = 0;
#pragma omp simd reduction(+ : sum, total)
  for (int k = 0; k <= 2 * r; ++k) {
    double d = dag_difference(base, static_cast<double>(pad[direction * k]));
    d = q.rel_numerator > 0 ? q.rel_numerator : d;
    const double rel = q.artifact ? 1.0 : d / q.mean[k];
    const double raised = q.power == 1 ? rel : power_positive(rel, q.power);
    const double g = q.bell[k] * (valid ? static_cast<double>(valid[k]) : 1.0);
    sum += g * exp_nonpositive(-q.scale * raised) * static_cast<double>(above[k]);
    total += g;
  }
  if (!valid) return sum * q.bell_scale;
  return total > 0 ? sum / total : 0.0;
}

constexpr DagKernels table = {{row_sums, masked_sums<float>, largest<float>, raise<float>,
                               law<float>, step_float, column<float>},
                              {row_sums, masked_sums<double>, largest<double>, raise<double>,
                               law<double>, step_double, column<double>}};

}  // namespace

const DagKernels& dag_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
