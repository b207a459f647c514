// Images of any scalar type, in kernels. Included by *_kernels.cpp only.
#pragma once

#include <cstdint>

#include "../kernels.h"
#include "../math/half.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

struct Half {
  std::uint16_t bits;
  operator double() const { return half_to_float(bits); }
};

// Calls f with the image as its own type.
template <class F>
USCONF_INLINE auto with_type(Scalar scalar, const void* image, F f) {
  switch (scalar) {
    case Scalar::u8:
      return f(static_cast<const std::uint8_t*>(image));
    case Scalar::u16:
      return f(static_cast<const std::uint16_t*>(image));
    case Scalar::i16:
      return f(static_cast<const std::int16_t*>(image));
    case Scalar::f16:
      return f(static_cast<const Half*>(image));
    case Scalar::f32:
      return f(static_cast<const float*>(image));
    default:
      return f(static_cast<const double*>(image));
  }
}

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
