// Pixels of every type as vectors of float (double for double): both neighbours of one row are
// fetched by one load. Included by scan_conversion_kernels.cpp only; for AVX2 and AVX-512.
#pragma once

#include <cstdint>
#include <cstring>

#include "vectors.h"

// GCC 12 takes the undefined operands of its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

struct Half {
  std::uint16_t bits;
};

#if defined(__AVX512F__)
typedef __m512 Floats;
typedef __m512d Doubles;
typedef __m512i Words;
#elif defined(__AVX2__)
typedef __m256 Floats;
typedef __m256d Doubles;
typedef __m256i Words;
#endif

#if defined(__AVX2__)

// Two pixels side by side, of as many footprints as a vector of W has lanes.
template <class W>
struct Pair;
template <>
struct Pair<float> {
  Floats left, right;
};
template <>
struct Pair<double> {
  Doubles left, right;
};

// 128-bit parts from the lowest up.
#if defined(__AVX512F__)
USCONF_INLINE Floats join(__m128 a, __m128 b, __m128 c, __m128 d) {
  const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1);
  const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(c), d, 1);
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}
#else
USCONF_INLINE Floats join(__m128 a, __m128 b) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1);
}
#endif

USCONF_INLINE __m128 two_pairs(const float* p, std::int32_t i, std::int32_t j) {
  double low, high;  // 64 bits that no arithmetic touches
  std::memcpy(&low, p + i, 8);
  std::memcpy(&high, p + j, 8);
  return _mm_castpd_ps(_mm_set_pd(high, low));
}

USCONF_INLINE Pair<float> pairs(const float* p, const std::int32_t* i) {
  // Parts interleaved so that the shuffle, which stays within 128 bits, leaves them in order.
#if defined(__AVX512F__)
  const Floats even = join(two_pairs(p, i[0], i[1]), two_pairs(p, i[4], i[5]),
                           two_pairs(p, i[8], i[9]), two_pairs(p, i[12], i[13]));
  const Floats odd = join(two_pairs(p, i[2], i[3]), two_pairs(p, i[6], i[7]),
                          two_pairs(p, i[10], i[11]), two_pairs(p, i[14], i[15]));
  return {_mm512_shuffle_ps(even, odd, 0x88), _mm512_shuffle_ps(even, odd, 0xdd)};
#else
  const Floats even = join(two_pairs(p, i[0], i[1]), two_pairs(p, i[4], i[5]));
  const Floats odd = join(two_pairs(p, i[2], i[3]), two_pairs(p, i[6], i[7]));
  return {_mm256_shuffle_ps(even, odd, 0x88), _mm256_shuffle_ps(even, odd, 0xdd)};
#endif
}

USCONF_INLINE Pair<double> pairs(const double* p, const std::int32_t* i) {
  const auto at = [&](int k) USCONF_INLINE_LAMBDA { return _mm_loadu_pd(p + i[k]); };
  const auto two = [&](int k, int l) USCONF_INLINE_LAMBDA {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(at(k)), at(l), 1);
  };
#if defined(__AVX512F__)
  const Doubles even = _mm512_insertf64x4(_mm512_castpd256_pd512(two(0, 2)), two(4, 6), 1);
  const Doubles odd = _mm512_insertf64x4(_mm512_castpd256_pd512(two(1, 3)), two(5, 7), 1);
  return {_mm512_unpacklo_pd(even, odd), _mm512_unpackhi_pd(even, odd)};
#else
  const Doubles even = two(0, 2), odd = two(1, 3);
  return {_mm256_unpacklo_pd(even, odd), _mm256_unpackhi_pd(even, odd)};
#endif
}

// Loads and insertions, no gathers: a Zen 4 takes 1.7 times as long with those.
template <class T>
USCONF_INLINE __m128i four_pairs(const T* p, const std::int32_t* i) {
  const auto pair = [&](int k) USCONF_INLINE_LAMBDA {
    std::int32_t both;
    std::memcpy(&both, p + i[k], 4);
    return both;
  };
  const __m128i low = _mm_insert_epi32(_mm_cvtsi32_si128(pair(0)), pair(1), 1);
  const __m128i high = _mm_insert_epi32(_mm_cvtsi32_si128(pair(2)), pair(3), 1);
  return _mm_unpacklo_epi64(low, high);
}

// Both pixels in one 32-bit lane, the left one lowest.
template <class T>
USCONF_INLINE Words pairs_16(const T* p, const std::int32_t* i) {
#if defined(__AVX512F__)
  const __m256i low = _mm256_set_m128i(four_pairs(p, i + 4), four_pairs(p, i));
  const __m256i high = _mm256_set_m128i(four_pairs(p, i + 12), four_pairs(p, i + 8));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#else
  return _mm256_set_m128i(four_pairs(p, i + 4), four_pairs(p, i));
#endif
}

USCONF_INLINE __m128i eight_pairs(const std::uint8_t* p, const std::int32_t* i) {
  const auto pair = [&](int k) USCONF_INLINE_LAMBDA {
    std::int16_t both;
    std::memcpy(&both, p + i[k], 2);
    return both;
  };
  // Two chains of insertions, which wait for each other.
  __m128i a = _mm_cvtsi32_si128(pair(0)), b = _mm_cvtsi32_si128(pair(4));
  a = _mm_insert_epi16(a, pair(1), 1), b = _mm_insert_epi16(b, pair(5), 1);
  a = _mm_insert_epi16(a, pair(2), 2), b = _mm_insert_epi16(b, pair(6), 2);
  a = _mm_insert_epi16(a, pair(3), 3), b = _mm_insert_epi16(b, pair(7), 3);
  return _mm_unpacklo_epi64(a, b);
}

USCONF_INLINE Pair<float> pairs(const std::uint8_t* p, const std::int32_t* i) {
#if defined(__AVX512F__)
  const __m256i both = _mm256_set_m128i(eight_pairs(p, i + 8), eight_pairs(p, i));
  const __m256i left = _mm256_and_si256(both, _mm256_set1_epi16(0xff));
  const __m256i right = _mm256_srli_epi16(both, 8);
  return {_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(left)),
          _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(right))};
#else
  const __m128i both = eight_pairs(p, i);
  const __m128i left = _mm_and_si128(both, _mm_set1_epi16(0xff)), right = _mm_srli_epi16(both, 8);
  return {_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(left)),
          _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(right))};
#endif
}

#if defined(__AVX512F__)
USCONF_INLINE Pair<float> pairs(const std::uint16_t* p, const std::int32_t* i) {
  const Words both = pairs_16(p, i);
  return {_mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(0xffff))),
          _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 16))};
}
USCONF_INLINE Pair<float> pairs(const std::int16_t* p, const std::int32_t* i) {
  const Words both = pairs_16(p, i);
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(both, 16), 16)),
          _mm512_cvtepi32_ps(_mm512_srai_epi32(both, 16))};
}
USCONF_INLINE Pair<float> pairs(const Half* p, const std::int32_t* i) {
  const Words both = pairs_16(p, i);
  return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(both)),
          _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)))};
}

USCONF_INLINE void put(float* out, Floats v) { _mm512_storeu_ps(out, v); }
USCONF_INLINE void put(double* out, Doubles v) { _mm512_storeu_pd(out, v); }
USCONF_INLINE void put(std::uint8_t* out, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v)));
}
USCONF_INLINE void put(std::uint16_t* out, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                      _mm512_cvtusepi32_epi16(_mm512_cvtps_epi32(v)));
}
USCONF_INLINE void put(std::int16_t* out, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                      _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
}
USCONF_INLINE void put(Half* out, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtps_ph(v, 0));
}

USCONF_INLINE Floats get(const float* p) { return _mm512_loadu_ps(p); }
USCONF_INLINE Doubles get(const double* p) { return _mm512_loadu_pd(p); }
USCONF_INLINE bool any_zero(Floats v) {
  return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_EQ_OQ) != 0;
}
USCONF_INLINE bool any_zero(Doubles v) {
  return _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_EQ_OQ) != 0;
}
USCONF_INLINE Floats where_equal(Floats a, float b, Floats yes, Floats no) {
  return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_EQ_OQ), yes);
}
USCONF_INLINE Doubles where_equal(Doubles a, double b, Doubles yes, Doubles no) {
  return _mm512_mask_mov_pd(no, _mm512_cmp_pd_mask(a, _mm512_set1_pd(b), _CMP_EQ_OQ), yes);
}
#else
USCONF_INLINE Pair<float> pairs(const std::uint16_t* p, const std::int32_t* i) {
  const Words both = pairs_16(p, i);
  return {_mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(0xffff))),
          _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 16))};
}
USCONF_INLINE Pair<float> pairs(const std::int16_t* p, const std::int32_t* i) {
  const Words both = pairs_16(p, i);
  return {_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(both, 16), 16)),
          _mm256_cvtepi32_ps(_mm256_srai_epi32(both, 16))};
}

// 32-bit lanes that fit 16 bits, unsigned, together.
USCONF_INLINE __m128i narrow_unsigned(__m256i v) {
  return _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}
USCONF_INLINE Pair<float> pairs(const Half* p, const std::int32_t* i) {
  const Words both = pairs_16(p, i);
  return {_mm256_cvtph_ps(narrow_unsigned(_mm256_and_si256(both, _mm256_set1_epi32(0xffff)))),
          _mm256_cvtph_ps(narrow_unsigned(_mm256_srli_epi32(both, 16)))};
}

USCONF_INLINE void put(float* out, Floats v) { _mm256_storeu_ps(out, v); }
USCONF_INLINE void put(double* out, Doubles v) { _mm256_storeu_pd(out, v); }
USCONF_INLINE void put(std::uint8_t* out, Floats v) {
  const __m128i words = narrow_unsigned(_mm256_cvtps_epi32(v));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(words, words));
}
USCONF_INLINE void put(std::uint16_t* out, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), narrow_unsigned(_mm256_cvtps_epi32(v)));
}
USCONF_INLINE void put(std::int16_t* out, Floats v) {
  const __m256i n = _mm256_cvtps_epi32(v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1)));
}
USCONF_INLINE void put(Half* out, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(v, 0));
}

USCONF_INLINE Floats get(const float* p) { return _mm256_loadu_ps(p); }
USCONF_INLINE Doubles get(const double* p) { return _mm256_loadu_pd(p); }
USCONF_INLINE bool any_zero(Floats v) {
  return _mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_EQ_OQ)) != 0;
}
USCONF_INLINE bool any_zero(Doubles v) {
  return _mm256_movemask_pd(_mm256_cmp_pd(v, _mm256_setzero_pd(), _CMP_EQ_OQ)) != 0;
}
USCONF_INLINE Floats where_equal(Floats a, float b, Floats yes, Floats no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, _mm256_set1_ps(b), _CMP_EQ_OQ));
}
USCONF_INLINE Doubles where_equal(Doubles a, double b, Doubles yes, Doubles no) {
  return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(a, _mm256_set1_pd(b), _CMP_EQ_OQ));
}
#endif
#endif  // __AVX2__

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
