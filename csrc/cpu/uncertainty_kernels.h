// Kernels of the uncertainty measures.
#pragma once

#include "../math/uncertainty.h"
#include "isa.h"

namespace usconf::cpu {

// Pixels whose sums stay in the first cache while all draws pass.
constexpr int uncertainty_block = 256;

// Pixels [begin, end) of one image.
template <class T>
struct UncertaintyStretch {
  const T* logits;  // (draws, ..., classes, pixels) of this image
  int draws, classes;
  long draw_stride, pixels;  // from draw to draw, from class to class
  long begin, end;
  T *total, *expected, *mutual, *variance;  // (pixels) of this image
  T* scratch;                               // uncertainty_scratch() numbers
  const T* noise;  // (samples, ..., classes, pixels) of this image, or null
  int samples;
};

// How many numbers of scratch a thread needs.
USCONF_HD long uncertainty_scratch(int draws, int classes, bool noisy) {
  const long of_classes = classes == 1 ? 2 : classes;
  return uncertainty_block * (noisy          ? (noisy_planes + 1) * of_classes
                              : classes == 1 ? 0
                                             : 2L * draws);
}

struct UncertaintyKernels {
  void (*in_float)(const UncertaintyStretch<float>&);
  void (*in_double)(const UncertaintyStretch<double>&);
};

USCONF_DECLARE_TABLE(UncertaintyKernels, uncertainty_kernels)

}  // namespace usconf::cpu
