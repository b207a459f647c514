// log2(x) for normal x > 0 and exp2(x), written as straight-line arithmetic so that plain loops
// over them vectorise.
#pragma once

#include <cstdint>
#include <cstring>

#include "exponential.h"

namespace usconf {

// Splits x = 2^e (1 + z), 1 + z in [sqrt(1/2), sqrt(2)). Minimax polynomial of log2(1 + z) / z:
// wrong by 5e-8 at most.
USCONF_HD float log2_positive(float x) {
  std::int32_t bits;
  std::memcpy(&bits, &x, 4);
  const std::int32_t e = (bits - 0x3f3504f3) >> 23;
  bits -= e * (1 << 23);
  float m;
  std::memcpy(&m, &bits, 4);
  const float z = m - 1.0f;
  float p = -0.145757614f;
  p = p * z + 0.23688251f;
  p = p * z - 0.250061172f;
  p = p * z + 0.286708537f;
  p = p * z - 0.360088121f;
  p = p * z + 0.480939392f;
  p = p * z - 0.721357121f;
  p = p * z + 1.44269477f;
  return p * z + static_cast<float>(e);
}

// log((1 + z) / 1) = 2 atanh(s), s = z / (2 + z), |s| <= 0.172: the first power left out is 3e-18.
USCONF_HD double log2_positive(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, 8);
  // e + 1024, unsigned, and to double by the low bits of 2^52: AVX2 neither shifts nor converts
  // signed 64-bit integers.
  const std::uint64_t e = (bits - 0x3fe6a09e667f3bcdu + (std::uint64_t{1024} << 52)) >> 52;
  const std::uint64_t e_bits = e | 0x4330000000000000u;
  bits = bits - (e << 52) + (std::uint64_t{1024} << 52);
  double m, exponent;
  std::memcpy(&m, &bits, 8);
  std::memcpy(&exponent, &e_bits, 8);
  exponent -= 4503599627370496.0 + 1024.0;
  const double s = (m - 1.0) / (m + 1.0);
  const double q = s * s;
  double p = 1.0 / 21;
  p = p * q + 1.0 / 19;
  p = p * q + 1.0 / 17;
  p = p * q + 1.0 / 15;
  p = p * q + 1.0 / 13;
  p = p * q + 1.0 / 11;
  p = p * q + 1.0 / 9;
  p = p * q + 1.0 / 7;
  p = p * q + 1.0 / 5;
  p = p * q + 1.0 / 3;
  // The leading term apart, so that nothing is rounded at the size of e before the end.
  return (s * q * p + s) * 2.8853900817779268147 + exponent;
}

// Minimax polynomial of 2^r, |r| <= 1/2: wrong by 8e-8 of the value at most. x is held within the
// normal numbers.
USCONF_HD float exp2_bounded(float x) {
  x = x < -126.0f ? -126.0f : x;
  x = x > 127.0f ? 127.0f : x;
  const float k = x + 12582912.0f;  // as in exp_nonpositive
  const float r = x - (k - 12582912.0f);
  float p = 1.34100056e-3f;
  p = p * r + 9.67603662e-3f;
  p = p * r + 5.5502973e-2f;
  p = p * r + 0.240221074f;
  p = p * r + 0.693147225f;
  p = p * r + 1.00000008f;
  std::int32_t bits;
  std::memcpy(&bits, &k, 4);
  bits = (bits + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

USCONF_HD double exp2_bounded(double x) {
  x = x > 1022.0 ? 1022.0 : x;
  return exp_nonpositive(x * 0.69314718055994530942);  // whose arithmetic holds up to there
}

template <class T>
USCONF_HD T log_positive(T x) {
  return log2_positive(x) * T(0.69314718055994530942);
}

template <class T>
USCONF_HD T power_positive(T x, T power) {
  return exp2_bounded(power * log2_positive(x));
}

}  // namespace usconf
