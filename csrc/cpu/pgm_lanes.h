// Vectors of floats or doubles with which the formulas of math/pgm.h work too. Included by
// pgm_kernels.cpp only.
#pragma once

// GCC 12 finds fault with its own header's way to leave a register undefined.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <cstdint>
#include <type_traits>

#include "../math/pgm.h"
#include "vectors.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace usconf {

template <class T>
struct PgmLanes {
  typedef T V __attribute__((vector_size(sizeof(cpu::USCONF_ISA_NAMESPACE::Vec))));
  typedef typename Made<T>::Int Int
      __attribute__((vector_size(sizeof(cpu::USCONF_ISA_NAMESPACE::Vec))));
  static constexpr int count = sizeof(V) / sizeof(T);
};
#if defined(__AVX512F__)
#define USCONF_PGM_CHOOSE(which, of, a, b) (V) _mm512_##which##_##of((a), (b))
#elif defined(__AVX2__)
#define USCONF_PGM_CHOOSE(which, of, a, b) (V) _mm256_##which##_##of((a), (b))
#elif defined(__SSE2__)
#define USCONF_PGM_CHOOSE(which, of, a, b) (V) _mm_##which##_##of((a), (b))
#else
#define USCONF_PGM_CHOOSE(which, of, a, b) ((a)USCONF_PGM_##which(b) ? (a) : (b))
#define USCONF_PGM_max >
#define USCONF_PGM_min <
#endif
template <class T>
struct MadeOfLanes {
  using Of = T;
  using V = typename PgmLanes<T>::V;
  using Int = typename PgmLanes<T>::Int;
  static USCONF_HD V select(Int first, V a, V b) { return first ? a : b; }
  static USCONF_HD Int bits(V v) { return (Int)v; }
  static USCONF_HD V value(Int i) { return (V)i; }
};
template <>
struct Made<PgmLanes<float>::V> : MadeOfLanes<float> {
  static USCONF_HD V larger(V a, V b) { return USCONF_PGM_CHOOSE(max, ps, a, b); }
  static USCONF_HD V smaller(V a, V b) { return USCONF_PGM_CHOOSE(min, ps, a, b); }
};
template <>
struct Made<PgmLanes<double>::V> : MadeOfLanes<double> {
  static USCONF_HD V larger(V a, V b) { return USCONF_PGM_CHOOSE(max, pd, a, b); }
  static USCONF_HD V smaller(V a, V b) { return USCONF_PGM_CHOOSE(min, pd, a, b); }
};
#undef USCONF_PGM_CHOOSE

// Two vectors, step by step together: a pixel's polynomials are one long chain, and while it waits
// for itself the processor does not see far enough ahead to find the next pixel's.
template <class V>
struct Twin {
  V a, b;
};
#define USCONF_TWIN(op)                                        \
  template <class V>                                           \
  USCONF_HD auto operator op(Twin<V> l, Twin<V> r) {           \
    return Twin<decltype(l.a op r.a)>{l.a op r.a, l.b op r.b}; \
  }                                                            \
  template <class V, class S>                                  \
  USCONF_HD auto operator op(Twin<V> l, S r) {                 \
    return Twin<decltype(l.a op r)>{l.a op r, l.b op r};       \
  }                                                            \
  template <class V, class S>                                  \
  USCONF_HD auto operator op(S l, Twin<V> r) {                 \
    return Twin<decltype(l op r.a)>{l op r.a, l op r.b};       \
  }
USCONF_TWIN(+)
USCONF_TWIN(-)
USCONF_TWIN(*)
USCONF_TWIN(/)
USCONF_TWIN(<)
USCONF_TWIN(<<)
USCONF_TWIN(>>)
#undef USCONF_TWIN
template <class V>
USCONF_HD Twin<V> operator-(Twin<V> v) {
  return {-v.a, -v.b};
}
template <class V>
struct Made<Twin<V>> {
  using Of = typename Made<V>::Of;
  using W = Twin<V>;
  using Int = Twin<typename Made<V>::Int>;
  static USCONF_HD W larger(W a, W b) {
    return {Made<V>::larger(a.a, b.a), Made<V>::larger(a.b, b.b)};
  }
  static USCONF_HD W smaller(W a, W b) {
    return {Made<V>::smaller(a.a, b.a), Made<V>::smaller(a.b, b.b)};
  }
  template <class M>
  static USCONF_HD W select(M first, W a, W b) {
    return {Made<V>::select(first.a, a.a, b.a), Made<V>::select(first.b, a.b, b.b)};
  }
  static USCONF_HD Int bits(W v) { return {Made<V>::bits(v.a), Made<V>::bits(v.b)}; }
  static USCONF_HD W value(Int i) { return {Made<V>::value(i.a), Made<V>::value(i.b)}; }
};

}  // namespace usconf

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// As many bytes as there are lanes, as integers of the lanes' size. The compiler's own conversion
// takes them one by one.
template <class T>
USCONF_INLINE typename PgmLanes<T>::Int widened(const std::uint8_t* p) {
  using Int = typename PgmLanes<T>::Int;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Int)_mm512_maskz_cvtepu8_epi32(0xffff,
                                           _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  else
    return (Int)_mm512_maskz_cvtepu8_epi64(0xff,
                                           _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return (Int)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  } else {
    int four;
    __builtin_memcpy(&four, p, 4);
    return (Int)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
  }
#else
  Int v{};
  for (int j = 0; j < PgmLanes<T>::count; ++j) v[j] = p[j];
  return v;
#endif
}

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
