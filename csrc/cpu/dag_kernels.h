// Row kernels of the DAG map. A step leads from row r of C, `above`, to row r + 1, `below`.
#pragma once

#include <cstdint>

#include "../math/dag.h"
#include "isa.h"

namespace usconf::cpu {

// Rows in memory have margins, so that columns [-R, width + R) can be read; up to dag_overrun
// columns more may be read and, behind the last column, written.
constexpr int dag_overrun = 16;

// How a row's exp(-t) is evaluated: 0 in full, else by a polynomial of this degree.
constexpr int dag_least_degree = 3, dag_largest_degree = 8;
constexpr int dag_planes = dag_largest_degree + 2;  // of a float law; a double law has 2

// What the weights of one row's edges follow from. Planes of `slots` values:
//   power 1:  [0] g, [1] x d_r / mean                 (in full)
//             [j] coefficients of u^j, g included     (u = D - 1e-4)
//   else:     [0] g, [1] log2 of x d_r / mean^power   (in full)
//             [j] g p_j, [degree + 1] that logarithm  (polynomial in t)
//             with `raise`: [degree + 1] x d_r / mean^power itself
template <class T>
struct DagLaw {
  const T* planes;
  int slots;  // length of a plane, 2R+1 rounded up
  int degree;
  T residual;  // sum over the slots of what plane 0 lost by rounding
  T power;
  const T* raise;  // table of D^power; null: by logarithm
};

// D^power for D in [2^-14, 4): 2^(power e) by octave e, and a polynomial in the mantissa less 1.5.
constexpr int dag_octaves = 16, dag_first_octave = -14, dag_raise_degree = 7;
constexpr int dag_raise_size = dag_octaves + dag_raise_degree + 1;

// Pixels compared: base[c] with pad[c + direction (k - R)].
template <class T>
struct DagRow {
  const T *base, *pad;
  int direction, half_width;
};

// One child column in double, its edges one by one.
template <class T>
struct DagColumn {
  DagRow<T> row;
  const T* above;
  const T* valid_above;       // nonzero where a parent is valid, with margins; null: all
  const double *mean, *bell;  // per slot; bell before normalisation
  double bell_scale;          // what makes g of the bell where all edges exist
  double power, scale;        // scale = x d_r
  double rel_numerator;       // > 0: D is this in all slots (needle)
  bool artifact;              // rel is 1
};

struct DagLawInput {
  const double *mean, *beam;  // per slot, padded to the law's slots (mean 1, g 0)
  double power, scale;        // scale = x d_r
  double reach;               // largest D
  int slots;
  bool raise;  // there is a table of D^power
};

template <class T>
struct DagSteps {
  // sums[k] = sum over columns [0, n) of |base - pad|; edges[k] (with masks): how many of them
  // exist
  void (*sums)(const DagRow<T>&, int n, double* sums);
  void (*masked_sums)(const DagRow<T>&, const T* valid_base, const T* valid_pad, int n,
                      double* sums, int* edges);
  // Largest |base - pad| of all existing edges; masks may be null.
  double (*largest)(const DagRow<T>&, const T* valid_base, const T* valid_pad, int n);
  // Fills a table of dag_raise_size; false: none is accurate, or of use, here.
  bool (*raise)(double power, T* table);
  // Fills the planes and all of the law but `planes`, `slots` and `raise`, which it may reset.
  void (*law)(const DagLawInput&, T* planes, DagLaw<T>* law);
  // below[c] = min(cap, sum_k w above[c + k - R]) for c in [begin, end), and up to a vector more.
  void (*step)(const DagRow<T>&, const DagLaw<T>&, const T* above, T cap, int begin, int end,
               T* below);
  // The sum of one column; g renormalised over existing edges where valid_above is given.
  double (*column)(const DagColumn<T>&, int c);
};

struct DagKernels {
  DagSteps<float> in_float;
  DagSteps<double> in_double;
};

USCONF_DECLARE_TABLE(DagKernels, dag_kernels)

template <class T>
const DagSteps<T>& dag_steps() {
  if constexpr (sizeof(T) == sizeof(float))
    return dag_kernels().in_float;
  else
    return dag_kernels().in_double;
}

}  // namespace usconf::cpu
