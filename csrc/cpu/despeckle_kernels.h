// Row kernels of despeckling. Rows have margins of despeckle_margin columns that repeat their first
// and last pixel; up to as many columns behind the last may be written.
#pragma once

#include <cstdint>

#include "../math/despeckle.h"
#include "isa.h"

namespace usconf::cpu {

constexpr int despeckle_margin = 16;
constexpr int largest_median = 15;

// E of three rows; masks: 1 valid, 0 not, null where all are.
template <class T>
struct SradRows {
  const T *north, *here, *south;
  const T *valid_north, *valid_here, *valid_south;
};

template <class T>
struct DespeckleRows {
  void (*exponentiate)(T* row, int n);                                       // in place
  void (*logarithm)(const T* row, int n, double low, double scale, T* out);  // low + scale log E
  void (*coefficients)(const SradRows<T>&, int n, T q0, T* c);               // c[n] = c[n - 1]
  // Returns the sum of the squared changes of valid pixels.
  double (*diffuse)(const SradRows<T>&, const T* c, const T* c_south, int n, T rate, T* out);
  // Of blocks side by side, srad_block rows of `stride`, where support is nonzero.
  void (*block_speckle)(const T* rows, const T* valid, long stride, const std::uint8_t* support,
                        int blocks, double* speckle);
  // Medians of whole windows; rows: `size` row pointers; scratch: `size` rows with margins.
  void (*median)(const T* const* rows, int size, int n, T* scratch, long stride, T* out);
};

struct DespeckleKernels {
  DespeckleRows<float> in_float;
  DespeckleRows<double> in_double;
};

USCONF_DECLARE_TABLE(DespeckleKernels, despeckle_kernels)

template <class T>
const DespeckleRows<T>& despeckle_rows() {
  if constexpr (sizeof(T) == sizeof(float))
    return despeckle_kernels().in_float;
  else
    return despeckle_kernels().in_double;
}

}  // namespace usconf::cpu
