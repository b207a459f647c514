// IEEE binary16 to float, for compilers without a half type on every instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "exponential.h"

namespace usconf {

USCONF_HD float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t magnitude = h & 0x7fffu;
  // Shifting exponent and fraction in place leaves the exponent 112 too small; multiplying by 2^112
  // corrects it and normalises subnormals at once. Infinity and NaN need their exponent filled.
  std::uint32_t bits = magnitude << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  value *= 5.192296858534828e33f;  // 2^112
  std::memcpy(&bits, &value, 4);
  bits |= magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  bits |= sign;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace usconf
