// Hot loops of the iterative random walk solver, built once per instruction set. Each is a loop
// over some columns of one colour, or over one row; who does which part is decided in
// multigrid.cpp.
//
// Split layout: a row keeps its even columns first, then its odd columns, so that a sweep over one
// colour has unit stride. Column 2k + h of row i lies at i * ld + h * half + k, ld = 2 * half. Each
// half ends in 16 zeros, which with the zero rows around a plane serve all reads beyond the edge.
#pragma once

#include "isa.h"

namespace usconf::cpu {

// The operator of one level. Couplings are nonnegative on level 0; further down, where P^T A P
// makes them, horizontal ones may be negative.
struct LevelPlanes {
  int rows;
  long half, ld;
  float *right, *below, *below_right, *below_left;
  float* pivot;  // 1 / pivot of the elimination down each column; 0 at dummies
};

// The operator once the odd columns are interpolated away: even column 2k of row i at i * ld + k.
struct EvenColumns {
  int rows;
  long half, ld;
  float *right, *below, *below_right, *below_left, *seeds;
};

// Weights with which row 2j + 1 follows coarse rows j and j + 1, even column 2k at j * half + k.
// Odd columns need none in the cycle: what follows a correction solves them exactly.
struct RowWeights {
  float *up, *down;
};

// One frame's system in the caller's layout (see solver/couplings.h).
template <class T>
struct NaturalSystem {
  int rows, columns;
  long ld, ld_x;
  const T *right, *below, *below_right, *below_left, *source, *sink;
  const T* rhs;  // row distance ld_x; null: the map's, that is `source`
};

struct MultigridKernels {
  // Natural row -> split row, the sum of two rows where `other` is not null.
  void (*split_float)(const float* row, const float* other, long columns, long half, float* out);
  void (*split_double)(const double* row, const double* other, long columns, long half, float* out);

  // Set-up of a level and of the one below it.
  void (*eliminate)(const LevelPlanes&, const float* seeds, int colour, long begin, long end);
  void (*side_sums)(const LevelPlanes&, float* left, float* right, int row);
  void (*coarsen_across)(const LevelPlanes&, const float* seeds, const float* left,
                         const float* right, const float* lost, const EvenColumns& out, int row);
  void (*weigh_rows)(const EvenColumns&, const RowWeights& out, float* lost, int pair);
  void (*coarsen_down)(const EvenColumns&, const RowWeights&, const float* lost,
                       const LevelPlanes& out, float* seeds, int coarse_row);

  // The cycle, on half-row elements [begin, end), multiples of 32.
  // x = T^-1 (rhs + lateral couplings * x) down the columns of one colour.
  void (*solve_columns)(const LevelPlanes&, int colour, bool lateral, const float* rhs, float* x,
                        long begin, long end);
  void (*restrict_even)(const LevelPlanes&, const RowWeights&, const float* x,
                        const LevelPlanes& coarse, float* rhs, long begin, long end);
  void (*correct_even)(const LevelPlanes&, const RowWeights&, const LevelPlanes& coarse,
                       const float* correction, float* x, long begin, long end);

  // Conjugate gradients, on split rows; apply and dot return their part of a dot product.
  double (*apply)(const LevelPlanes&, const float* seeds, const float* p, float* q, int row);
  double (*dot)(const float* a, const float* b, long n);
  void (*direction)(const float* z, float beta, float* p, long n);
  void (*advance)(const float* p, const float* q, float alpha, float* dx, float* r, long n);

  // One row of x += dx, dx = what rounding left over. Returns max |dx|, raises *largest to max |x|.
  double (*settle_float)(float* dx, long columns, long half, float* x, double* largest);
  double (*settle_double)(float* dx, long columns, long half, double* x, double* largest);
  // One row of r = rhs - A (x + dx) as a sum of flows in double; dx and r split planes.
  void (*residual_float)(const NaturalSystem<float>&, const float* x, const float* dx, int row,
                         long half, float* r);
  void (*residual_double)(const NaturalSystem<double>&, const double* x, const float* dx, int row,
                          long half, float* r);
};

USCONF_DECLARE_TABLE(MultigridKernels, multigrid_kernels)

}  // namespace usconf::cpu
