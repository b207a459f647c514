// exp(x) for x <= 0, written as straight-line arithmetic so that plain loops over it vectorise.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define USCONF_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define USCONF_HD inline __attribute__((always_inline))
#else
#define USCONF_HD inline
#endif

namespace usconf {

// Splits x = n ln2 + r, |r| <= ln2/2, and sums the Taylor series of exp(r); the highest power kept
// leaves a truncation error below the type's rounding (degree 7: 5e-9, degree 13: 4e-18).
USCONF_HD float exp_nonpositive(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float k = x * 1.44269504088896341f + shift;
  const float n = k - shift;
  float r = x - n * 0.693145751953125f;  // ln2 in two parts: 12 leading bits, so that n * part
  r = r - n * 1.42860682030941723e-6f;   // is exact, and the rest
  float p = 1.9841270e-4f;
  p = p * r + 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  std::int32_t bits;
  std::memcpy(&bits, &k, 4);
  bits = (bits + 127) << 23;  // the low bits of k hold n: this builds 2^n
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

USCONF_HD double exp_nonpositive(double x) {
  x = x < -708.0 ? -708.0 : x;
  const double shift = 6755399441055744.0;  // 1.5 * 2^52
  const double k = x * 1.4426950408889634074 + shift;
  const double n = k - shift;
  double r = x - n * 0.693147180369123816490;
  r = r - n * 1.90821492927058770002e-10;
  double p = 1.6059043836821613e-10;
  p = p * r + 2.0876756987868099e-9;
  p = p * r + 2.5052108385441719e-8;
  p = p * r + 2.7557319223985891e-7;
  p = p * r + 2.7557319223985893e-6;
  p = p * r + 2.4801587301587302e-5;
  p = p * r + 1.9841269841269841e-4;
  p = p * r + 1.3888888888888889e-3;
  p = p * r + 8.3333333333333333e-3;
  p = p * r + 4.1666666666666667e-2;
  p = p * r + 1.6666666666666667e-1;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  std::int64_t bits;
  std::memcpy(&bits, &k, 8);
  bits = (bits + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, 8);
  return p * scale;
}

}  // namespace usconf
