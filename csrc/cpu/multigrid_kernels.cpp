#include "multigrid_kernels.h"

#if defined(__GNUC__)
#define USCONF_INLINE static inline __attribute__((always_inline))
#else
#define USCONF_INLINE static inline
#endif

namespace usconf::cpu::USCONF_ISA_NAMESPACE {

// A pivot this small belongs to a pixel without couplings (the smallest weight is 1e-6).
constexpr float no_coupling = 1e-30f;
constexpr float least_pivot = 1e-3f;  // of the coupling to the pixel below

// Where a colour's neighbours to the left and right lie, relative to its own element.
struct Sides {
  long left, right;
};

USCONF_INLINE Sides sides(long half, int colour) {
  return colour == 0 ? Sides{half - 1, half} : Sides{-half, 1 - half};
}

USCONF_INLINE float nonnegative(float a) { return a > 0.0f ? a : 0.0f; }

// sum w_oj x_j over the six neighbours in the columns beside `o`.
USCONF_INLINE float lateral_sum(const LevelPlanes& a, const float* x, Sides s, long o) {
  const long below = o + a.ld, above = o - a.ld;
  return (a.right[o] * x[o + s.right] + a.right[o + s.left] * x[o + s.left]) +
         (a.below_right[o] * x[below + s.right] + a.below_left[o] * x[below + s.left]) +
         (a.below_right[above + s.left] * x[above + s.left] +
          a.below_left[above + s.right] * x[above + s.right]);
}

USCONF_INLINE float magnitude(float a) { return a < 0.0f ? -a : a; }

// Couplings of a coarse level partly cancel, and what is left of columns that do not touch is
// noise: down a long column it would add up to a connection, or to a negative pivot.
USCONF_INLINE float net_coupling(float a, float b, float c) {
  const float sum = a + b + c, noise = 4e-7f * (magnitude(a) + magnitude(b) + magnitude(c));
  return magnitude(sum) > noise ? sum : 0.0f;
}

USCONF_INLINE float left_couplings(const LevelPlanes& a, Sides s, long o) {
  return net_coupling(a.right[o + s.left], a.below_left[o], a.below_right[o - a.ld + s.left]);
}

USCONF_INLINE float right_couplings(const LevelPlanes& a, Sides s, long o) {
  return net_coupling(a.right[o], a.below_right[o], a.below_left[o - a.ld + s.right]);
}

template <class T>
USCONF_INLINE void split(const T* row, const T* other, long columns, long half, float* out) {
  for (long k = 0; k < (columns + 1) / 2; ++k)
    out[k] = static_cast<float>(other ? row[2 * k] + other[2 * k] : row[2 * k]);
  for (long k = 0; k < columns / 2; ++k)
    out[half + k] = static_cast<float>(other ? row[2 * k + 1] + other[2 * k + 1] : row[2 * k + 1]);
}

static void split_float(const float* row, const float* other, long columns, long half, float* out) {
  split(row, other, columns, half, out);
}

static void split_double(const double* row, const double* other, long columns, long half,
                         float* out) {
  split(row, other, columns, half, out);
}

// Elimination down the columns without subtractions (GTH): `rest` is all that a pixel is coupled to
// except the pixel below it, columns above eliminated, and its pivot is rest + below.
static void eliminate(const LevelPlanes& a, const float* seeds, int colour, long begin, long end) {
  const Sides s = sides(a.half, colour);
  for (long k = begin; k < end; k += 16) {
    float rest[16] = {};
    for (int i = 0; i < a.rows; ++i) {
      const long o = i * a.ld + colour * a.half + k;
#pragma omp simd
      for (int j = 0; j < 16; ++j) {
        const long e = o + j;
        const float passed = a.below[e - a.ld] * a.pivot[e - a.ld] * rest[j];
        const float sum = seeds[e] + left_couplings(a, s, e) + right_couplings(a, s, e) + passed;
        // On coarse levels `rest` may be negative; rounding must not let it eat up the pivot.
        // Keeping it nonnegative instead costs up to 40 % more iterations.
        const float least = least_pivot * a.below[e], full = sum + a.below[e];
        const float pivot = full > least ? full : least;
        rest[j] = pivot - a.below[e];
        a.pivot[e] = pivot > no_coupling ? 1.0f / pivot : 0.0f;
      }
    }
  }
}

// Odd columns' couplings to the even column on either side, as right-hand sides.
static void side_sums(const LevelPlanes& a, float* left, float* right, int row) {
  const Sides s = sides(a.half, 1);
  const long o = row * a.ld, n = a.half - 16;
#pragma omp simd
  for (long k = 0; k < n; ++k) {
    left[o + k] = left_couplings(a, s, o + a.half + k);
    right[o + k] = right_couplings(a, s, o + a.half + k);
  }
}

// P^T A P for an odd column that follows the even ones beside it as u = left * l + right * r, where
// left (right, lost) solves the odd column for l = 1 (r = 1, the seeds = 1) and 0 elsewhere.
static void coarsen_across(const LevelPlanes& a, const float* seeds, const float* left,
                           const float* right, const float* lost, const EvenColumns& out, int row) {
  const Sides even = sides(a.half, 0), odd = sides(a.half, 1);
  const long n = a.half - 16;
#pragma omp simd
  for (long k = 0; k < n; ++k) {
    const long e = row * a.ld + k, below = e + a.ld;  // even column
    const long r = e + a.half, l = r - 1;             // odd columns beside it
    const float own = left_couplings(a, odd, r) + right_couplings(a, odd, r) + seeds[r] +
                      a.below[r] + a.below[r - a.ld];
    out.right[e] = a.right[e] * right[e] + left[e] * a.right[r] - left[e] * right[e] * own;
    out.below_right[e] = a.below_right[e] * right[below] + left[e] * a.below_right[r] +
                         a.below[r] * left[e] * right[below];
    out.below_left[e] = a.below_left[e] * left[below - 1] + right[e - 1] * a.below_left[l] +
                        a.below[l] * right[e - 1] * left[below - 1];
    out.below[e] = a.below[e] +
                   (a.below_right[e] * left[below] + left[e] * a.below_left[r] +
                    a.below[r] * left[e] * left[below]) +
                   (a.below_left[e] * right[below - 1] + right[e - 1] * a.below_right[l] +
                    a.below[l] * right[e - 1] * right[below - 1]);
    // A P 1 = A (1 - lost) vanishes on the odd columns: only this is left, and it is positive.
    out.seeds[e] = seeds[e] + lateral_sum(a, lost - a.half, even, e);
  }
}

// An odd row follows the rows above and below it by its couplings to them, those along it ignored.
static void weigh_rows(const EvenColumns& a, const RowWeights& out, float* lost, int pair) {
  const long o = (2L * pair + 1) * a.ld, n = a.half - 16;
#pragma omp simd
  for (long k = 0; k < n; ++k) {
    const long c = o + k, above = c - a.ld;
    const float up =
        nonnegative(a.below[above] + a.below_right[above - 1] + a.below_left[above + 1]);
    const float down = nonnegative(a.below[c] + a.below_right[c] + a.below_left[c]);
    const float all = up + down + a.seeds[c];
    const float scale = all > no_coupling ? 1.0f / all : 0.0f;
    out.up[pair * a.half + k] = up * scale;
    out.down[pair * a.half + k] = down * scale;
    lost[c] = a.seeds[c] * scale;
  }
}

// What odd pixel `c` adds to the coarse row sums per unit of its weight: -(A lost) along its row.
USCONF_INLINE float lost_along(const EvenColumns& a, const float* lost, long c) {
  return a.right[c] * (lost[c + 1] - lost[c]) + a.right[c - 1] * (lost[c - 1] - lost[c]);
}

// P^T A P down the columns. With rows u (even), o (odd), d (even) from top to bottom and o
// following them by `up` and `down`, u is coupled to itself sideways and to d through o.
static void coarsen_down(const EvenColumns& a, const RowWeights& p, const float* lost,
                         const LevelPlanes& out, float* seeds, int coarse_row) {
  const long u = 2L * coarse_row * a.ld, o = u + a.ld, t = u - a.ld;
  const float *up = p.up + coarse_row * a.half, *down = p.down + coarse_row * a.half;
  const float* down_t = down - a.half;  // row -1 of the weights is zero
  for (long k0 = 0; k0 < a.half - 16; k0 += 32) {
    float row[5][32];
#pragma omp simd
    for (int j = 0; j < 32; ++j) {
      const long k = k0 + j, uk = u + k, ok = o + k, tk = t + k;
      const float h = a.right[ok], h_left = a.right[ok - 1];
      const float to_u = a.below[uk] + a.below_right[uk - 1] + a.below_left[uk + 1];
      const float to_d = a.below[ok] + a.below_right[ok] + a.below_left[ok];
      const float own = to_u + to_d + h + h_left + a.seeds[ok];
      row[0][j] =
          a.right[uk] +
          (a.below_right[uk] * up[k + 1] + up[k] * a.below_left[uk + 1] + h * up[k] * up[k + 1]) +
          (a.below_left[tk + 1] * down_t[k + 1] + down_t[k] * a.below_right[tk] +
           a.right[tk] * down_t[k] * down_t[k + 1]);
      row[1][j] = a.below[uk] * down[k] + up[k] * a.below[ok] - up[k] * down[k] * own;
      row[2][j] =
          a.below_right[uk] * down[k + 1] + up[k] * a.below_right[ok] + h * up[k] * down[k + 1];
      row[3][j] =
          a.below_left[uk] * down[k - 1] + up[k] * a.below_left[ok] + h_left * up[k] * down[k - 1];
      const float gained = a.below[uk] * lost[ok] + a.below_right[uk] * lost[ok + 1] +
                           a.below_left[uk] * lost[ok - 1] + a.below[tk] * lost[tk] +
                           a.below_right[tk - 1] * lost[tk - 1] +
                           a.below_left[tk + 1] * lost[tk + 1];
      row[4][j] = nonnegative(a.seeds[uk] + gained + up[k] * lost_along(a, lost, ok) +
                              down_t[k] * lost_along(a, lost, tk));
    }
    float* const planes[5] = {out.right, out.below, out.below_right, out.below_left, seeds};
    const long c = coarse_row * out.ld + k0 / 2;
    for (int plane = 0; plane < 5; ++plane)
      for (int j = 0; j < 16; ++j) {
        planes[plane][c + j] = row[plane][2 * j];
        planes[plane][c + out.half + j] = row[plane][2 * j + 1];
      }
  }
}

// Down: x = (rhs + lateral + what comes from above) / pivot. Up: x += below / pivot * x below.
template <int width, bool lateral>
USCONF_INLINE void solve_strip(const LevelPlanes& a, int colour, const float* rhs, float* x,
                               long k) {
  const Sides s = sides(a.half, colour);
  float carry[width] = {};
  for (int i = 0; i < a.rows; ++i) {
    const long o = i * a.ld + colour * a.half + k;
#pragma omp simd
    for (int j = 0; j < width; ++j) {
      float y = rhs[o + j] + carry[j];
      if (lateral) y += lateral_sum(a, x, s, o + j);
      y *= a.pivot[o + j];
      carry[j] = y * a.below[o + j];
      x[o + j] = y;
    }
  }
  for (int j = 0; j < width; ++j) carry[j] = 0;
  for (int i = a.rows - 1; i >= 0; --i) {
    const long o = i * a.ld + colour * a.half + k;
#pragma omp simd
    for (int j = 0; j < width; ++j) {
      carry[j] = x[o + j] + a.below[o + j] * a.pivot[o + j] * carry[j];
      x[o + j] = carry[j];
    }
  }
}

template <bool lateral>
USCONF_INLINE void solve_range(const LevelPlanes& a, int colour, const float* rhs, float* x,
                               long begin, long end) {
  // 64 columns at a time: enough independent recurrences to hide the latency of the sweep, few
  // enough for the way up to find its data in the cache.
  for (; begin + 64 <= end; begin += 64) solve_strip<64, lateral>(a, colour, rhs, x, begin);
  if (begin < end) solve_strip<32, lateral>(a, colour, rhs, x, begin);
}

static void solve_columns(const LevelPlanes& a, int colour, bool lateral, const float* rhs,
                          float* x, long begin, long end) {
  if (lateral)
    solve_range<true>(a, colour, rhs, x, begin, end);
  else
    solve_range<false>(a, colour, rhs, x, begin, end);
}

// After even, then odd columns were solved from x = 0, the residual is 0 on odd columns and, on
// even ones, just what the odd columns sent: no difference of large numbers is ever taken.
static void restrict_even(const LevelPlanes& a, const RowWeights& p, const float* x,
                          const LevelPlanes& coarse, float* rhs, long begin, long end) {
  const Sides s = sides(a.half, 0);
  for (long k0 = begin; k0 < end; k0 += 32) {
    float sum[32] = {};
    for (int i = 0; i < coarse.rows; ++i) {
      const long o = 2L * i * a.ld + k0, w = i * a.half + k0;
      float next[32] = {};
#pragma omp simd
      for (int j = 0; j < 32; ++j) sum[j] += lateral_sum(a, x, s, o + j);
      if (2 * i + 1 < a.rows) {
#pragma omp simd
        for (int j = 0; j < 32; ++j) {
          const float odd = lateral_sum(a, x, s, o + a.ld + j);
          sum[j] += p.up[w + j] * odd;
          next[j] = p.down[w + j] * odd;
        }
      }
      float* out = rhs + i * coarse.ld + k0 / 2;
      for (int j = 0; j < 16; ++j) {
        out[j] = sum[2 * j];
        out[coarse.half + j] = sum[2 * j + 1];
      }
      for (int j = 0; j < 32; ++j) sum[j] = next[j];
    }
  }
}

static void correct_even(const LevelPlanes& a, const RowWeights& p, const LevelPlanes& coarse,
                         const float* correction, float* x, long begin, long end) {
  for (long k0 = begin; k0 < end; k0 += 32) {
    float above[32], below[32];
    for (int i = 0; i <= coarse.rows; ++i) {  // row coarse.rows of a plane is zero
      const float* from = correction + i * coarse.ld + k0 / 2;
      for (int j = 0; j < 16; ++j) {
        below[2 * j] = from[j];
        below[2 * j + 1] = from[coarse.half + j];
      }
      if (i > 0 && 2 * i - 1 < a.rows) {
        const long o = (2L * i - 1) * a.ld + k0, w = (i - 1) * a.half + k0;
#pragma omp simd
        for (int j = 0; j < 32; ++j) x[o + j] += p.up[w + j] * above[j] + p.down[w + j] * below[j];
      }
      if (i == coarse.rows) break;
      const long o = 2L * i * a.ld + k0;
#pragma omp simd
      for (int j = 0; j < 32; ++j) x[o + j] += below[j];
      for (int j = 0; j < 32; ++j) above[j] = below[j];
    }
  }
}

// q = A p as a sum of flows w (p_o - p_j).
static double apply(const LevelPlanes& a, const float* seeds, const float* p, float* q, int row) {
  double sum = 0;
  for (int colour = 0; colour < 2; ++colour) {
    const Sides s = sides(a.half, colour);
    const long o = row * a.ld + colour * a.half, n = a.half - 16;
    double part = 0;
#pragma omp simd reduction(+ : part)
    for (long k = 0; k < n; ++k) {
      const long e = o + k, below = e + a.ld, above = e - a.ld;
      const float v = p[e];
      const float flow =
          (a.right[e] * (v - p[e + s.right]) + a.right[e + s.left] * (v - p[e + s.left])) +
          (a.below_right[e] * (v - p[below + s.right]) +
           a.below_left[e] * (v - p[below + s.left])) +
          (a.below_right[above + s.left] * (v - p[above + s.left]) +
           a.below_left[above + s.right] * (v - p[above + s.right])) +
          (a.below[e] * (v - p[below]) + a.below[above] * (v - p[above])) + seeds[e] * v;
      q[e] = flow;
      part += static_cast<double>(flow) * v;
    }
    sum += part;
  }
  return sum;
}

static double dot(const float* a, const float* b, long n) {
  double sum = 0;  // products of small residuals would underflow in float
#pragma omp simd reduction(+ : sum)
  for (long k = 0; k < n; ++k) sum += static_cast<double>(a[k]) * b[k];
  return sum;
}

static void direction(const float* z, float beta, float* p, long n) {
#pragma omp simd
  for (long k = 0; k < n; ++k) p[k] = z[k] + beta * p[k];
}

static void advance(const float* p, const float* q, float alpha, float* dx, float* r, long n) {
#pragma omp simd
  for (long k = 0; k < n; ++k) {
    dx[k] += alpha * p[k];
    r[k] -= alpha * q[k];
  }
}

// x + dx is rounded to x and the rest stays in dx: the rounding of a float map, once in the
// residual, would carry more energy than the error that is left to remove.
template <class T>
USCONF_INLINE double settle(float* dx, long columns, long half, T* x, double* largest) {
  // dx may hold what the last settling left over, which is no step: half a unit of a float's last
  // place. A double's is far below any tolerance.
  constexpr double left_over = sizeof(T) == sizeof(float) ? 0x1p-24 : 0;
  double change = 0;
  for (int h = 0; h < 2; ++h)
    for (long k = 0; 2 * k + h < columns; ++k) {
      const double d = dx[h * half + k];
      const double sum = x[2 * k + h] + d;
      const double size = sum < 0 ? -sum : sum;
      const double moved = (d < 0 ? -d : d) - left_over * size;
      x[2 * k + h] = static_cast<T>(sum);
      dx[h * half + k] = static_cast<float>(sum - x[2 * k + h]);
      change = moved > change ? moved : change;
      *largest = size > *largest ? size : *largest;
    }
  return change;
}

static double settle_float(float* dx, long columns, long half, float* x, double* largest) {
  return settle(dx, columns, half, x, largest);
}

static double settle_double(float* dx, long columns, long half, double* x, double* largest) {
  return settle(dx, columns, half, x, largest);
}

// One row of x + dx: what a pixel's neighbours are read from.
template <class T>
struct Values {
  const T* x;
  const float* dx;
};

// Flow into column 2k + h. Beyond an edge couplings are 0 and x has no value: column c's is read.
template <int h, bool left, bool right, class T>
USCONF_INLINE float inflow(const NaturalSystem<T>& a, long o, Values<T> row, Values<T> above,
                           Values<T> below, const T* rhs, long half, long k) {
  const long c = 2 * k + h, e = o + c;
  const long l = left ? c - 1 : c, r = right ? c + 1 : c;
  const long s = h * half + k, sl = h ? k : half + k - 1, sr = h ? k + 1 : half + k;
  const double v = row.x[c], w = row.dx[s];
  const auto from = [&](Values<T> there, long x, long dx) {
    return (there.x[x] - v) + (there.dx[dx] - w);
  };
  double sum = a.below[e] * from(below, c, s) + a.below[e - a.ld] * from(above, c, s);
  sum += a.right[e] * from(row, r, sr) + a.below_right[e] * from(below, r, sr);
  sum += a.below_left[e - a.ld + 1] * from(above, r, sr) + a.right[e - 1] * from(row, l, sl);
  sum += a.below_left[e] * from(below, l, sl) + a.below_right[e - a.ld - 1] * from(above, l, sl);
  const double source = a.source[e], sink = a.sink[e];
  sum += rhs ? (rhs[c] - (source + sink) * v) - (source + sink) * w
             : (source * (1 - v) - sink * v) - (source + sink) * w;
  return static_cast<float>(sum);
}

template <int h, class T>
USCONF_INLINE void residual_half(const NaturalSystem<T>& a, long o, Values<T> row, Values<T> above,
                                 Values<T> below, const T* rhs, long half, float* r) {
  const long last = a.columns - 1;
  float* const out = r + h * half;
  if (h == 0)
    out[0] = last > 0 ? inflow<h, false, true>(a, o, row, above, below, rhs, half, 0)
                      : inflow<h, false, false>(a, o, row, above, below, rhs, half, 0);
#pragma omp simd
  for (long k = 1 - h; k < (last - h + 1) / 2; ++k)
    out[k] = inflow<h, true, true>(a, o, row, above, below, rhs, half, k);
  if (last > 0 && last % 2 == h)
    out[last / 2] = inflow<h, true, false>(a, o, row, above, below, rhs, half, last / 2);
}

template <class T>
USCONF_INLINE void residual(const NaturalSystem<T>& a, const T* x, const float* dx, int i,
                            long half, float* r) {
  const auto values = [&](int row) { return Values<T>{x + row * a.ld_x, dx + row * 2 * half}; };
  const Values<T> row = values(i), above = values(i > 0 ? i - 1 : i),
                  below = values(i + 1 < a.rows ? i + 1 : i);
  const T* rhs = a.rhs ? a.rhs + i * a.ld_x : nullptr;
  r += i * 2 * half;
  residual_half<0>(a, i * a.ld, row, above, below, rhs, half, r);
  if (a.columns > 1) residual_half<1>(a, i * a.ld, row, above, below, rhs, half, r);
}

static void residual_float(const NaturalSystem<float>& a, const float* x, const float* dx, int row,
                           long half, float* r) {
  residual(a, x, dx, row, half, r);
}

static void residual_double(const NaturalSystem<double>& a, const double* x, const float* dx,
                            int row, long half, float* r) {
  residual(a, x, dx, row, half, r);
}

const MultigridKernels& multigrid_kernels() {
  static constexpr MultigridKernels table = {
      split_float,  split_double,  eliminate,     side_sums,     coarsen_across, weigh_rows,
      coarsen_down, solve_columns, restrict_even, correct_even,  apply,          dot,
      direction,    advance,       settle_float,  settle_double, residual_float, residual_double};
  return table;
}

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
