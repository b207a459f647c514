// IEEE binary16 to float and back, for compilers without a half type on every instruction set.
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

// Rounded to the nearest, ties to even; too large becomes infinity.
USCONF_HD std::uint16_t float_to_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // NaN
  if (bits >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65520 and more
  if (bits < 0x38800000u) {
    // Subnormal, below 2^-14: adding 1/2 rounds to multiples of 2^-24 in the lowest bits.
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, 4);
    return static_cast<std::uint16_t>(sign | (bits - 0x3f000000u));
  }
  const std::uint32_t odd = (bits >> 13) & 1u;
  bits += 0xc8000fffu + odd;  // exponent 112 smaller, and half of what is cut off
  return static_cast<std::uint16_t>(sign | (bits >> 13));
}

}  // namespace usconf
