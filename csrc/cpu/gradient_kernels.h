// Row kernels of the random walk's derivative.
#pragma once

#include <cstdint>

#include "../math/random_walk.h"
#include "isa.h"

namespace usconf::cpu {

// Sums over edges of one kind and what follows for the parameters; see EdgeDerivative.
struct EdgeSums {
  double d_beta, d_u, d_m2, d_u_d;  // d_u_d: sum of d_u d, for the derivative with respect to M
  long at_maximum;                  // edges whose d is the largest of their kind
};

// One end of a row of edges.
struct EdgeEnds {
  const double* c;            // attenuated image
  const double* x;            // map
  const double* adjoint;      // 0 at seeds and outside
  const std::uint8_t* label;  // null: no pixel is outside
};

struct GradientKernels {
  // n edges between a[i] and b[i]: adds dLoss/dc (M, M2 held fixed) to d_a[i] and d_b[i].
  EdgeSums (*edges)(const EdgeLaw&, int kind, double largest, EdgeEnds a, EdgeEnds b, int n,
                    double* d_a, double* d_b);
  // Adds `share` of the derivative with respect to the largest d to the edges that attain it.
  void (*maxima)(double largest, double share, EdgeEnds a, EdgeEnds b, int n, double* d_a,
                 double* d_b);
};

USCONF_DECLARE_TABLE(GradientKernels, gradient_kernels)

}  // namespace usconf::cpu
