// exp and logarithms whose values or arguments lie between 0 and 1, as the sigmoid needs them.
//
// Written for a number or for a vector of them: V is float, double or, on the CPU, many of either.
#pragma once

#include <cstdint>
#include <cstring>

#include "exponential.h"

namespace usconf {

// What V is made of, and a > b ? a : b, a < b ? a : b, for which compilers do not find a vector's
// own instruction; vectors are added where they are used.
template <class V>
struct Made;
template <class T, class I>
struct MadeOfOne {
  using Of = T;
  using Int = I;
  static USCONF_HD T larger(T a, T b) { return a > b ? a : b; }
  static USCONF_HD T smaller(T a, T b) { return a < b ? a : b; }
  static USCONF_HD T select(bool first, T a, T b) { return first ? a : b; }
  static USCONF_HD I bits(T v) {
    I i;
    std::memcpy(&i, &v, sizeof i);
    return i;
  }
  static USCONF_HD T value(I i) {
    T v;
    std::memcpy(&v, &i, sizeof v);
    return v;
  }
};
template <>
struct Made<float> : MadeOfOne<float, std::int32_t> {};
template <>
struct Made<double> : MadeOfOne<double, std::int64_t> {};
template <class V>
constexpr bool single = sizeof(typename Made<V>::Of) == 4;

// c[0] + x c[1] + ...
template <class V, int N>
USCONF_HD V polynomial(V x, const typename Made<V>::Of (&c)[N]) {
  V p = V{} + c[N - 1];
#if defined(__CUDACC__)
#pragma unroll
#elif defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 20
#endif
  for (int i = N - 2; i >= 0; --i) p = p * x + c[i];
  return p;
}

// exp(x), x <= 0, like exp_nonpositive; float by a minimax polynomial of 2^r: wrong by 1e-7 of the
// value and 7e-8 |x| of it.
template <class V>
USCONF_HD V unit_exp(V x) {
  using T = typename Made<V>::Of;
  if constexpr (single<V>) {
    constexpr T c[] = {1.00000008f,   0.693147225f,   0.240221074f,
                       5.5502973e-2f, 9.67603662e-3f, 1.34100056e-3f};
    const V at = Made<V>::larger(V{} - 87.0f, x);
    const V k = at * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
    const V p = polynomial(at * 1.44269504088896341f - (k - 12582912.0f), c);
    return p * Made<V>::value((Made<V>::bits(k) + 127) << 23);
  } else {
    constexpr T c[] = {1.0,
                       1.0,
                       0.5,
                       1.6666666666666667e-1,
                       4.1666666666666667e-2,
                       8.3333333333333333e-3,
                       1.3888888888888889e-3,
                       1.9841269841269841e-4,
                       2.4801587301587302e-5,
                       2.7557319223985893e-6,
                       2.7557319223985891e-7,
                       2.5052108385441719e-8,
                       2.0876756987868099e-9,
                       1.6059043836821613e-10};
    const V at = Made<V>::larger(V{} - 708.0, x);
    const V k = at * 1.4426950408889634074 + 6755399441055744.0;  // 1.5 * 2^52
    const V n = k - 6755399441055744.0;
    const V p = polynomial((at - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10, c);
    return p * Made<V>::value((Made<V>::bits(k) + 1023) << 52);
  }
}

// ln(1 + e), 0 <= e <= 1. float: minimax polynomial of ln(1 + e) / e, wrong by 1e-7 at most,
// rounding included. double: 2 atanh(t), t = e / (2 + e) <= 1/3; the first power left out is 1e-18.
template <class V>
USCONF_HD V unit_log1p(V e) {
  using T = typename Made<V>::Of;
  if constexpr (single<V>) {
    constexpr T c[] = {9.99999702e-1f,  -4.99984384e-1f, 3.33058834e-1f,
                       -2.47654319e-1f, 1.88592076e-1f,  -1.32119015e-1f,
                       7.34864473e-2f,  -2.68499199e-2f, 4.61776042e-3f};
    return polynomial(e, c) * e;
  } else {
    constexpr T c[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11, 1.0 / 13,
                       1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23, 1.0 / 25,
                       1.0 / 27, 1.0 / 29, 1.0 / 31, 1.0 / 33};
    const V t = e / (e + 2.0), q = t * t;
    return (t * q * polynomial(q, c) + t) * 2.0;
  }
}

// ln x of x in [1e-7, 1], from x = 2^k (1 + e), 0 <= e < 1, shifted up by 2^24 so that k is
// positive and the subtraction at the end exact where x is 1.
template <class V>
USCONF_HD V unit_log(V x) {
  using T = typename Made<V>::Of;
  const auto bits = Made<V>::bits(x);
  constexpr int digits = single<V> ? 23 : 52;
  using I = typename Made<T>::Int;
  // x = 2^k m, m in [2/3, 4/3): near 1, where 1 - x counts, k is 0.
  constexpr I low = single<V> ? I(0x3f2aaaab) : I(0x3fe5555555555555);
  const auto k = (bits - low) >> digits;
  const V m = Made<V>::value(bits - (k << digits));
  // An integer of this size to floating point by the low bits of 1.5 * 2^digits.
  constexpr T shift = single<V> ? T(12582912.0) : T(6755399441055744.0);
  constexpr I shift_bits = single<V> ? I(0x4b400000) : I(0x4338000000000000);
  const V n = Made<V>::value(k + shift_bits) - shift;
  // 2 atanh(t), |t| <= 1/5.
  const V t = (m - T(1)) / (m + T(1)), q = t * t;
  if constexpr (single<V>) {
    constexpr T c[] = {T(1.0 / 3), T(1.0 / 5), T(1.0 / 7), T(1.0 / 9), T(1.0 / 11)};
    return (t * q * polynomial(q, c) + t) * T(2) + n * T(0.69314718055994530942);
  } else {
    constexpr T c[] = {T(1.0 / 3),  T(1.0 / 5),  T(1.0 / 7),  T(1.0 / 9),  T(1.0 / 11), T(1.0 / 13),
                       T(1.0 / 15), T(1.0 / 17), T(1.0 / 19), T(1.0 / 21), T(1.0 / 23)};
    return (t * q * polynomial(q, c) + t) * T(2) + n * T(0.69314718055994530942);
  }
}

}  // namespace usconf
