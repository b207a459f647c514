// Row kernels that read images of any type: extremes and scaling of the valid pixels.
#pragma once

#include <cstdint>

#include "../kernels.h"
#include "isa.h"

namespace usconf::cpu {

struct IntensityRange {
  double low, high;
};

struct IntensityKernels {
  // Of n pixels; valid null or nonzero where a pixel counts (low > high: none does).
  IntensityRange (*range)(Scalar, const void* image, const std::uint8_t* valid, long n);
  // out = (image - low) * scale, 0 where invalid
  void (*scale_float)(Scalar, const void* image, const std::uint8_t* valid, long n, double low,
                      double scale, float* out);
  void (*scale_double)(Scalar, const void* image, const std::uint8_t* valid, long n, double low,
                       double scale, double* out);
};

USCONF_DECLARE_TABLE(IntensityKernels, intensity_kernels)

}  // namespace usconf::cpu
