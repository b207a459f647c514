// The annotation model's energy (Ronchetti et al., "Beyond Shadows", eq. 2-6), per pixel and per
// pair of pixels, and its derivatives. x: confidence, l = ln x, m = ln(1 - x).
//
// Written for a number or for a vector of them: V is float, double or, on the CPU, many of either.
#pragma once

#include <cstdint>
#include <cstring>

#include "exponential.h"

namespace usconf {

// ln B(1.1, 1.1) of None's Beta density, ln 5 of the two others' (eq. 3).
constexpr double pgm_log_beta = -0.19669234931031790, pgm_log_5 = 1.6094379124341003;

// Probabilities nearer to 0 or 1 are read as this near: the next float32 below 1 is 6e-8 away, and
// ln 0 is no loss to learn from.
constexpr double pgm_margin = 1e-7;

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
constexpr bool pgm_single = sizeof(typename Made<V>::Of) == 4;

// c[0] + x c[1] + ...
template <class V, int N>
USCONF_HD V pgm_polynomial(V x, const typename Made<V>::Of (&c)[N]) {
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
USCONF_HD V pgm_exp(V x) {
  using T = typename Made<V>::Of;
  if constexpr (pgm_single<V>) {
    constexpr T c[] = {1.00000008f,   0.693147225f,   0.240221074f,
                       5.5502973e-2f, 9.67603662e-3f, 1.34100056e-3f};
    const V at = Made<V>::larger(V{} - 87.0f, x);
    const V k = at * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
    const V p = pgm_polynomial(at * 1.44269504088896341f - (k - 12582912.0f), c);
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
    const V p =
        pgm_polynomial((at - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10, c);
    return p * Made<V>::value((Made<V>::bits(k) + 1023) << 52);
  }
}

// ln(1 + e), 0 <= e <= 1. float: minimax polynomial of ln(1 + e) / e, wrong by 1e-7 at most,
// rounding included. double: 2 atanh(t), t = e / (2 + e) <= 1/3; the first power left out is 1e-18.
template <class V>
USCONF_HD V pgm_log1p(V e) {
  using T = typename Made<V>::Of;
  if constexpr (pgm_single<V>) {
    constexpr T c[] = {9.99999702e-1f,  -4.99984384e-1f, 3.33058834e-1f,
                       -2.47654319e-1f, 1.88592076e-1f,  -1.32119015e-1f,
                       7.34864473e-2f,  -2.68499199e-2f, 4.61776042e-3f};
    return pgm_polynomial(e, c) * e;
  } else {
    constexpr T c[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11, 1.0 / 13,
                       1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23, 1.0 / 25,
                       1.0 / 27, 1.0 / 29, 1.0 / 31, 1.0 / 33};
    const V t = e / (e + 2.0), q = t * t;
    return (t * q * pgm_polynomial(q, c) + t) * 2.0;
  }
}

// ln x of x in [1e-7, 1], from x = 2^k (1 + e), 0 <= e < 1, shifted up by 2^24 so that k is
// positive and the subtraction at the end exact where x is 1.
template <class V>
USCONF_HD V pgm_log(V x) {
  using T = typename Made<V>::Of;
  const auto bits = Made<V>::bits(x);
  constexpr int digits = pgm_single<V> ? 23 : 52;
  using I = typename Made<T>::Int;
  // x = 2^k m, m in [2/3, 4/3): near 1, where 1 - x counts, k is 0.
  constexpr I low = pgm_single<V> ? I(0x3f2aaaab) : I(0x3fe5555555555555);
  const auto k = (bits - low) >> digits;
  const V m = Made<V>::value(bits - (k << digits));
  // An integer of this size to floating point by the low bits of 1.5 * 2^digits.
  constexpr T shift = pgm_single<V> ? T(12582912.0) : T(6755399441055744.0);
  constexpr I shift_bits = pgm_single<V> ? I(0x4b400000) : I(0x4338000000000000);
  const V n = Made<V>::value(k + shift_bits) - shift;
  // 2 atanh(t), |t| <= 1/5.
  const V t = (m - T(1)) / (m + T(1)), q = t * t;
  if constexpr (pgm_single<V>) {
    constexpr T c[] = {T(1.0 / 3), T(1.0 / 5), T(1.0 / 7), T(1.0 / 9), T(1.0 / 11)};
    return (t * q * pgm_polynomial(q, c) + t) * T(2) + n * T(0.69314718055994530942);
  } else {
    constexpr T c[] = {T(1.0 / 3),  T(1.0 / 5),  T(1.0 / 7),  T(1.0 / 9),  T(1.0 / 11), T(1.0 / 13),
                       T(1.0 / 15), T(1.0 / 17), T(1.0 / 19), T(1.0 / 21), T(1.0 / 23)};
    return (t * q * pgm_polynomial(q, c) + t) * T(2) + n * T(0.69314718055994530942);
  }
}

// A pixel as the energy sees it, with derivatives of l and -m by what it was given as.
template <class V>
struct PgmPixel {
  V x, l, m, d_l, d_minus_m;
};

// x = sigmoid(z); l = -softplus(-z), m = -softplus(z). Every derivative is bounded.
template <class V>
USCONF_HD PgmPixel<V> pgm_from_logit(V z) {
  using T = typename Made<V>::Of;
  const auto negative = z < V{};
  const V e = pgm_exp(Made<V>::smaller(-z, z));  // a NaN stays one
  const V large = T(1) / (e + T(1));
  const V small = e * large;
  const V x = Made<V>::select(negative, small, large);
  const V rest = Made<V>::select(negative, large, small);
  const V l = Made<V>::smaller(z, V{}) - pgm_log1p(e);
  return {x, l, l - z, rest, x};
}

template <class V>
USCONF_HD PgmPixel<V> pgm_from_probability(V given) {
  using T = typename Made<V>::Of;
  constexpr T low = T(pgm_margin), high = T(1 - pgm_margin);
  const V x = Made<V>::smaller(V{} + high, Made<V>::larger(V{} + low, given));
  const V rest = T(1) - x;
  return {x, pgm_log(x), pgm_log(rest), T(1) / x, T(1) / rest};
}

template <bool Logits, class V>
USCONF_HD PgmPixel<V> pgm_pixel(V given) {
  if constexpr (Logits)
    return pgm_from_logit(given);
  else
    return pgm_from_probability(given);
}

// Derivative of x by what it was given as, from x and that of l.
template <bool Logits, class V>
USCONF_HD V pgm_d_x(V x, V d_l) {
  if constexpr (Logits) return x * d_l;
  return V{} + typename Made<V>::Of(1);
}

// The unary term is a l + b m + c, by label 0 None, 1 Good, 2 Bad.
template <class T>
struct PgmUnary {
  T a[3], b[3], c[3];
};

template <class T>
inline PgmUnary<T> pgm_unary(const double* weights, bool constants) {
  const double a[] = {-0.1, -4, 0}, b[] = {-0.1, 0, -4};
  const double c[] = {pgm_log_beta, -pgm_log_5, -pgm_log_5};
  PgmUnary<T> law{};
  for (int label = 0; label < 3; ++label) {
    law.a[label] = static_cast<T>(weights[label] * a[label]);
    law.b[label] = static_cast<T>(weights[label] * b[label]);
    law.c[label] = static_cast<T>(constants ? weights[label] * c[label] : 0.0);
  }
  return law;
}

// What the derivative is multiplied with: PgmResult's d_confidence.
template <class T>
inline T pgm_d_scale(bool mean, bool masked, double pixels) {
  return static_cast<T>(mean && !masked && pixels > 0 ? 1 / pixels : 1.0);
}

// How far the hinge of two pixels one above the other is open; its slope is 0 at the kink.
template <class V>
USCONF_HD V pgm_rise(V l, V l_above, V s) {
  return Made<V>::larger(l - l_above + s, V{});
}

}  // namespace usconf
