// Row kernels of the random walk's assembly: image -> attenuated image -> edge weights.
#pragma once

#include <cstdint>

#include "../kernels.h"
#include "../math/random_walk.h"
#include "isa.h"

namespace usconf::cpu {

// The attenuated image c is kept as 32-bit fixed point for float weights (differences are then
// exact, which float c would not give: relative weight errors 1e-5..8e-5) and as double for double
// weights.
constexpr double fixed_point = 1073741824.0;  // 2^30: c <= 1

struct Extremes {
  double low, high;
};

// Largest |c_i - c_j| by kind, in units of c's type; -1 where there is no such edge.
struct Maxima {
  double lateral, vertical;
};

// One row of edge weights, all (columns) long; 0 where the edge leaves the image.
template <class T>
struct EdgeRow {
  T *right, *below, *below_right, *below_left;
};

// Weights between row r and its lower neighbour; `next` null: no lower row.
template <class C, class T>
using WeighRow = void (*)(const EdgeLaw& law, double unit, const C* row, const C* next, int columns,
                          EdgeRow<T> out);
// 8 couplings of a labelled row. above: weights of the row pair (r-1, r), here: of (r, r+1).
template <class T>
using SeedRow = void (*)(EdgeRow<const T> above, EdgeRow<const T> here,
                         const std::uint8_t* label_above, const std::uint8_t* label,
                         const std::uint8_t* label_below, int columns, EdgeRow<T> out, T* source,
                         T* sink);

struct AssemblyKernels {
  // Extremes of n pixels; label null or per pixel: outside pixels do not count (low > high: none).
  Extremes (*extremes)(Scalar, const void* image, const std::uint8_t* label, long n);
  // out = (image - low) * scale, rounded to fixed point
  void (*attenuate_fixed)(Scalar, const void* image, long n, double low, double scale,
                          std::int32_t* out);
  void (*attenuate)(Scalar, const void* image, long n, double low, double scale, double* out);
  // label rows null: every pixel is valid; next null: no lower row
  Maxima (*maxima_fixed)(const std::int32_t* row, const std::int32_t* next,
                         const std::uint8_t* label, const std::uint8_t* label_next, int columns);
  Maxima (*maxima)(const double* row, const double* next, const std::uint8_t* label,
                   const std::uint8_t* label_next, int columns);
  WeighRow<std::int32_t, float> weigh_fixed;
  WeighRow<double, float> weigh_mixed;
  WeighRow<double, double> weigh_double;
  SeedRow<float> seed_float;
  SeedRow<double> seed_double;
};

USCONF_DECLARE_TABLE(AssemblyKernels, assembly_kernels)

}  // namespace usconf::cpu
