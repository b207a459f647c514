// A pixel of any scalar type, and doubles in an order that integers can compare.
#pragma once

#include <cstring>

#include "../kernels.h"
#include "../math/half.h"
#include "launch.h"

namespace usconf::cuda {

// The branch is the same for all threads.
__device__ inline double number_at(const void* image, Scalar scalar, long long i) {
  switch (scalar) {
    case Scalar::u8:
      return static_cast<const std::uint8_t*>(image)[i];
    case Scalar::u16:
      return static_cast<const std::uint16_t*>(image)[i];
    case Scalar::i16:
      return static_cast<const std::int16_t*>(image)[i];
    case Scalar::f16:
      return half_to_float(static_cast<const std::uint16_t*>(image)[i]);
    case Scalar::f32:
      return static_cast<const float*>(image)[i];
    default:
      return static_cast<const double*>(image)[i];
  }
}

// Order-preserving bijection from doubles to unsigned numbers, so that an integer maximum, whose
// result does not depend on the order, can find extremes of doubles.
__device__ __forceinline__ unsigned long long ordered(double v) {
  long long bits;
  memcpy(&bits, &v, 8);
  return bits < 0 ? ~static_cast<unsigned long long>(bits)
                  : static_cast<unsigned long long>(bits) | (1ull << 63);
}
__device__ __forceinline__ double unordered(unsigned long long bits) {
  bits = bits >> 63 ? bits & ~(1ull << 63) : ~bits;
  double v;
  memcpy(&v, &bits, 8);
  return v;
}

}  // namespace usconf::cuda
