#include "gradient_kernels.h"

#include "../kernels.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

constexpr std::uint8_t outside = static_cast<std::uint8_t>(Label::outside);

template <bool Masked>
USCONF_INLINE EdgeSums edges_of(const EdgeLaw& given, int kind, double largest, EdgeEnds a,
                                EdgeEnds b, int n, double* d_a, double* d_b) {
  const EdgeLaw law = given;
  double d_beta = 0, d_u = 0, d_m2 = 0, d_u_d = 0;
  long at_maximum = 0;
#pragma omp simd reduction(+ : d_beta, d_u, d_m2, d_u_d, at_maximum)
  for (int i = 0; i < n; ++i) {
    double step = a.c[i] - b.c[i];
    double valid = 1;
    if (Masked) {  // pixels outside may hold NaN
      valid = a.label[i] != outside && b.label[i] != outside ? 1.0 : 0.0;
      step = valid != 0 ? step : 0.0;
    }
    const double d = step < 0 ? -step : step;
    double d_w = -(a.adjoint[i] - b.adjoint[i]) * (a.x[i] - b.x[i]);
    if (Masked) d_w = valid != 0 ? d_w : 0.0;
    const EdgeDerivative e = edge_derivative(d, kind, d_w, law);
    d_beta += e.d_beta;
    d_u += e.d_u;
    d_m2 += e.d_m2;
    d_u_d += e.d_u * d;
    at_maximum += valid != 0 && d == largest ? 1 : 0;
    double t = e.d_u * law.scale1;
    t = step < 0 ? -t : t;
    t = step == 0 ? 0 : t;
    d_a[i] += t;
    d_b[i] -= t;
  }
  return {d_beta, d_u, d_m2, d_u_d, at_maximum};
}

EdgeSums edges(const EdgeLaw& law, int kind, double largest, EdgeEnds a, EdgeEnds b, int n,
               double* d_a, double* d_b) {
  return a.label ? edges_of<true>(law, kind, largest, a, b, n, d_a, d_b)
                 : edges_of<false>(law, kind, largest, a, b, n, d_a, d_b);
}

void maxima(double largest, double share, EdgeEnds a, EdgeEnds b, int n, double* d_a, double* d_b) {
  for (int i = 0; i < n; ++i) {
    const double step = a.c[i] - b.c[i];
    if ((step < 0 ? -step : step) != largest || step == 0) continue;
    if (a.label && (a.label[i] == outside || b.label[i] == outside)) continue;
    const double t = step < 0 ? -share : share;
    d_a[i] += t;
    d_b[i] -= t;
  }
}

constexpr GradientKernels table = {edges, maxima};

}  // namespace

const GradientKernels& gradient_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
