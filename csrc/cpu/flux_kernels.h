// The system applied in flux form, row by row: differences first, so that no rounded diagonal is
// needed.
#pragma once

#include "../solver/couplings.h"
#include "isa.h"

namespace usconf::cpu {

struct FluxKernels {
  // residual = b + sum_j w_ij (x_j - x_i) - (source_i + sink_i) x_i in columns [begin, end) of row
  // r; b null: the couplings to the source, i.e. the map's own right-hand side. All planes start at
  // the rectangle's first pixel and have the couplings' row distance.
  void (*residual_float)(const Couplings<float>&, int r, int begin, int end, const double* x,
                         const double* b, float* residual);
  void (*residual_double)(const Couplings<double>&, int r, int begin, int end, const double* x,
                          const double* b, float* residual);
  // x += dx over n values; the largest |dx|, NaN if any is not finite.
  double (*correct)(double* x, const float* dx, int n);
};

USCONF_DECLARE_TABLE(FluxKernels, flux_kernels)

}  // namespace usconf::cpu
