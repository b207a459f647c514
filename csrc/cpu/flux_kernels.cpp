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

template <class T>
void residual(const Couplings<T>& w, int r, const double* x, const double* b, float* out) {
  const long at = r * w.ld, up = at - w.ld;
  const FluxRow<T> flux{w.right + at,      w.below + at, w.below_right + at, w.below_left + at,
                        w.below + up,      w.below_right + up, w.below_left + up,
                        x + at,            x + up,       x + at + w.ld};
  if (w.seeded[r]) {
    const T *source = w.source + at, *sink = w.sink + at;
#pragma omp simd
    for (int c = 0; c < w.columns; ++c) {
      const double v = x[at + c], given = b ? b[at + c] - source[c] * v : source[c] * (1.0 - v);
      out[c] = static_cast<float>(flux(c) + given - sink[c] * v);
    }
  } else if (b) {
#pragma omp simd
    for (int c = 0; c < w.columns; ++c) out[c] = static_cast<float>(flux(c) + b[at + c]);
  } else {
#pragma omp simd
    for (int c = 0; c < w.columns; ++c) out[c] = static_cast<float>(flux(c));
  }
}

double correct(double* x, const float* dx, double scale, int n) {
  double largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < n; ++i) {
    const double d = scale * dx[i];
    const double size = d < 0 ? -d : d;
    x[i] += d;
    largest = size > largest ? size : largest;
  }
  return largest;
}

double largest(const float* v, int n) {
  float m = 0;
#pragma omp simd reduction(max : m)
  for (int i = 0; i < n; ++i) {
    const float size = v[i] < 0 ? -v[i] : v[i];
    m = size > m ? size : m;
  }
  return m;
}

constexpr FluxKernels table = {residual<float>, residual<double>, correct, largest};

}  // namespace

const FluxKernels& flux_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
