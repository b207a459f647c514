// Row kernels of the annotation model's loss.
#pragma once

#include <cstdint>

#include "../math/pgm.h"
#include "isa.h"

namespace usconf::cpu {

// Rows whose terms are summed together: sums do not depend on how rows are given to threads.
constexpr int pgm_strip_rows = 16;
// Planes of T beside the image that a stretch needs, and their margins.
constexpr int pgm_scratch_rows = 13, pgm_margin_columns = 16;

// What a strip adds up to; `wrong` counts labels beyond 2 and probabilities outside of [0, 1].
struct PgmSums {
  double unary, vertical, horizontal, valid, wrong;
};

// Rows [begin, end) of one frame, all (height, width); begin is a multiple of pgm_strip_rows.
template <class T>
struct PgmStretch {
  int height, width, begin, end;
  const T* given;
  const std::uint8_t *labels, *valid;  // valid: nonzero where it is, or null
  const T* d_map;                      // weights of the terms, or null: 1
  T* d_given;                          // or null
  T *unary, *vertical, *horizontal;  // maps of the terms, the same three times: their sum; or null
  PgmUnary<T> law;
  T gamma, s, sigma, d_scale;  // d_scale: d_given is multiplied with it
  T* scratch;                  // (pgm_scratch_rows, scratch_stride)
  long scratch_stride;
  PgmSums* sums;  // of the frame's strips; vertical without gamma, horizontal without sigma
};

template <class T>
struct PgmSteps {
  void (*logits)(const PgmStretch<T>&);
  void (*probabilities)(const PgmStretch<T>&);
};

struct PgmKernels {
  PgmSteps<float> in_float;
  PgmSteps<double> in_double;
};

USCONF_DECLARE_TABLE(PgmKernels, pgm_kernels)

}  // namespace usconf::cpu
