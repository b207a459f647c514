// Row kernels of the DAG map's derivative.
#pragma once

#include "dag_kernels.h"

namespace usconf::cpu {

// Of one slot of a row, with y = lam_child C_parent w: sums of y t, y and y t ln rel.
struct DagSlotSums {
  double exponent, weight, power;
};

// The edges of one row, seen from their children.
template <class T>
struct DagGradientRow {
  DagRow<T> row;
  DagLaw<T> law;
  const T *above, *lam;             // C of the parents, with margins; lam of the children
  const T *valid_base, *valid_pad;  // null: all edges exist
  const double *mean, *extra;       // per slot; extra: y t of children that are not in lam
  const int* edges;                 // per slot, how many exist; null: n
  double scale;                     // x d_r
  bool parameters;                  // whether more than the sums of y t is wanted
  int n;                            // columns
  // A row per slot, with margins of R zeros at least; then two numbers a slot.
  T* scratch;
  long scratch_stride;
  T* by_slot;
};

// What the derivative by the extremes of the image is made of: d_f (f - 1) and -d_f f summed, and
// how many pixels attain them.
struct DagExtremes {
  double low, high;
  long lows, highs;
};

template <class T>
struct DagGradientSteps {
  // Of n pixels; valid (nonzero where it is) may be null; top: the largest f.
  DagExtremes (*extremes)(const T* f, const T* d_f, const T* valid, int n, T top);
  // d_f scale, and what falls to the pixels that attain an extreme, in place; 0 where invalid.
  void (*pixels)(const T* f, const T* valid, int n, T top, double scale, double at_low,
                 double at_high, T* d);
  // Adds dLoss/d f_base and dLoss/d f_pad; d_pad with margins.
  void (*row)(const DagGradientRow<T>&, DagSlotSums* sums, T* d_base, T* d_pad);
  // w and t of the edges of one column.
  void (*weights)(const DagColumn<T>&, int c, double* w, double* t);
};

struct DagGradientKernels {
  DagGradientSteps<float> in_float;
  DagGradientSteps<double> in_double;
};

USCONF_DECLARE_TABLE(DagGradientKernels, dag_gradient_kernels)

template <class T>
const DagGradientSteps<T>& dag_gradient_steps() {
  if constexpr (sizeof(T) == sizeof(float))
    return dag_gradient_kernels().in_float;
  else
    return dag_gradient_kernels().in_double;
}

}  // namespace usconf::cpu
