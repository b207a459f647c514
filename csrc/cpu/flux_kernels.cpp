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
void residual(const Couplings<T>& w, int r, int begin, int end, const double* x, const double* b,
              float* plane) {
  const long at = r * w.ld, up = at - w.ld;
  float* out = plane + at;
  const FluxRow<T> flux{w.right + at,      w.below + at, w.below_right + at, w.below_left + at,
                        w.below + up,      w.below_right + up, w.below_left + up,
                        x + at,            x + up,       x + at + w.ld};
  if (w.seeded[r]) {
    const T *source = w.source + at, *sink = w.sink + at;
#pragma omp simd
    for (int c = begin; c < end; ++c) {
      const double v = x[at + c], given = b ? b[at + c] - source[c] * v : source[c] * (1.0 - v);
      out[c] = static_cast<float>(flux(c) + given - sink[c] * v);
    }
  } else if (b) {
#pragma omp simd
    for (int c = begin; c < end; ++c) out[c] = static_cast<float>(flux(c) + b[at + c]);
  } else {
#pragma omp simd
    for (int c = begin; c < end; ++c) out[c] = static_cast<float>(flux(c));
  }
}

double correct(double* x, const float* dx, int n) {
  double largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < n; ++i) {
    const double d = dx[i];
    const double size = d < 0 ? -d : d;
    x[i] += d;
    largest = size > largest ? size : largest;
  }
  return largest;
}

constexpr FluxKernels table = {residual<float>, residual<double>, correct};

}  // namespace

const FluxKernels& flux_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
