// Reading a pixel of any scalar type, and step 1 of the random walk.
#pragma once

#include "../math/half.h"
#include "random_walk_stages.h"

namespace usconf::cuda {

// One kernel for all types: the branch is the same for all threads.
__device__ inline double intensity_at(const Scene& s, int frame, long long pixel) {
  const long long i = frame * s.pixels() + pixel;
  switch (s.scalar) {
    case Scalar::u8:
      return static_cast<const std::uint8_t*>(s.image)[i];
    case Scalar::u16:
      return static_cast<const std::uint16_t*>(s.image)[i];
    case Scalar::i16:
      return static_cast<const std::int16_t*>(s.image)[i];
    case Scalar::f16:
      return half_to_float(static_cast<const std::uint16_t*>(s.image)[i]);
    case Scalar::f32:
      return static_cast<const float*>(s.image)[i];
    default:
      return static_cast<const double*>(s.image)[i];
  }
}

__device__ inline double normalised(const Scene& s, const FrameFacts& f, double value) {
  return s.normalise ? (value - f.low) / ((f.high - f.low) + random_walk_epsilon) : value;
}

}  // namespace usconf::cuda
