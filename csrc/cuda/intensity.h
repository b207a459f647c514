// Step 1 of the random walk.
#pragma once

#include "pixel.h"
#include "random_walk_stages.h"

namespace usconf::cuda {

__device__ inline double intensity_at(const Scene& s, int frame, long long pixel) {
  return number_at(s.image, s.scalar, frame * s.pixels() + pixel);
}

__device__ inline double normalised(const Scene& s, const FrameFacts& f, double value) {
  return s.normalise ? (value - f.low) / ((f.high - f.low) + random_walk_epsilon) : value;
}

}  // namespace usconf::cuda
