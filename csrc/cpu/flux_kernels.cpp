#include "flux_kernels.h"

#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// Pixel c's flux: sum_j w_ij (x_j - x_i).
template <class T>
struct FluxRow {
  const T *right, *below, *below_right, *below_left, *above, *above_left, *above_right;
  const double *here, *up, *down;

  USCONF_INLINE_MEMBER double operator()(long c) const {
    const double v = here[c];
    double sum = right[c] * (here[c + 1] - v) + right[c - 1] * (here[c - 1] - v);
    sum += below[c] * (down[c] - v) + above[c] * (up[c] - v);
    sum += below_right[c] * (down[c + 1] - v) + above_left[c - 1] * (up[c - 1] - v);
    sum += below_left[c] * (down[c - 1] - v) + above_right[c + 1] * (up[c + 1] - v);
    return sum;
  }
};

// out[0 .. n) = f(begin + 0 .. n), in whole vectors of eight: planes may be read beyond a row's
// end, but only n values may be written.
template <class F>
USCONF_INLINE void for_columns(int n, float* out, F f) {
  constexpr int wide = 8;
  int c = 0;
  for (; c + wide <= n; c += wide)
#pragma omp simd
    for (int l = 0; l < wide; ++l) out[c + l] = static_cast<float>(f(c + l));
  if (c == n) return;
  float rest[wide];
#pragma omp simd
  for (int l = 0; l < wide; ++l) rest[l] = static_cast<float>(f(c + l));
  for (int l = 0; c + l < n; ++l) out[c + l] = rest[l];
}

template <class T>
void residual(const Couplings<T>& w, int r, int begin, int end, const double* x, const double* b,
              float* plane) {
  const long at = r * w.ld + begin, up = at - w.ld;
  const FluxRow<T> flux{w.right + at, w.below + at,       w.below_right + at, w.below_left + at,
                        w.below + up, w.below_right + up, w.below_left + up,  x + at,
                        x + up,       x + at + w.ld};
  float* out = plane + at;
  const int n = end - begin;
  if (n == 1 && !w.seeded[r]) {  // a pixel of a separator down the image
    out[0] = static_cast<float>(b ? flux(0) + b[at] : flux(0));
  } else if (w.seeded[r]) {
    const T *source = w.source + at, *sink = w.sink + at;
    for_columns(n, out, [=](int c) USCONF_INLINE_LAMBDA {
      const double v = x[at + c], given = b ? b[at + c] - source[c] * v : source[c] * (1.0 - v);
      return flux(c) + given - sink[c] * v;
    });
  } else if (b) {
    for_columns(n, out, [=](int c) USCONF_INLINE_LAMBDA { return flux(c) + b[at + c]; });
  } else {
    for_columns(n, out, [=](int c) USCONF_INLINE_LAMBDA { return flux(c); });
  }
}

double correct(double* x, const float* dx, int n) {
  double largest = 0, wrong = 0;  // comparisons lose NaN, this sum does not
#pragma omp simd reduction(max : largest) reduction(+ : wrong)
  for (int i = 0; i < n; ++i) {
    const double d = dx[i];
    const double size = d < 0 ? -d : d;
    x[i] += d;
    wrong += d - d;
    largest = size > largest ? size : largest;
  }
  return largest + wrong;
}

constexpr FluxKernels table = {residual<float>, residual<double>, correct};

}  // namespace

const FluxKernels& flux_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
