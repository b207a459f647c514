// The widest float vectors of the instruction set a per-ISA source is compiled for. Included by
// *_kernels.cpp only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define USCONF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define USCONF_UNROLL _Pragma("GCC unroll 16")
#endif
#define USCONF_INLINE_LAMBDA __attribute__((always_inline))
#define USCONF_INLINE_MEMBER inline __attribute__((always_inline))
#define USCONF_INLINE static inline __attribute__((always_inline))

namespace usconf::cpu::USCONF_ISA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
// Tiles go eight side by side at most: their fronts then fit the second cache twice as well, which
// on a Zen 4 won 8 % over sixteen.
constexpr int tile_lanes = lanes < 8 ? lanes : 8;

typedef float Vec __attribute__((vector_size(4 * lanes)));
typedef float TileVec __attribute__((vector_size(4 * tile_lanes)));

template <class V>
struct Related;
template <>
struct Related<Vec> {
  typedef std::int32_t Int __attribute__((vector_size(4 * lanes)));
  typedef float Unaligned __attribute__((vector_size(4 * lanes), aligned(4)));
};
#if defined(__AVX512F__)
template <>
struct Related<TileVec> {
  typedef std::int32_t Int __attribute__((vector_size(4 * tile_lanes)));
  typedef float Unaligned __attribute__((vector_size(4 * tile_lanes), aligned(4)));
};
#endif
typedef Related<Vec>::Int IntVec;

template <class V = Vec>
USCONF_INLINE V load(const float* p) {
  return *reinterpret_cast<const V*>(p);
}
template <class V = Vec>
USCONF_INLINE V load_unaligned(const float* p) {
  return *reinterpret_cast<const typename Related<V>::Unaligned*>(p);
}
template <class V>
USCONF_INLINE void store(float* p, V v) {
  *reinterpret_cast<V*>(p) = v;
}
// Past the caches: for results that are not read again soon.
template <class V>
USCONF_INLINE void stream(float* p, V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) return _mm512_stream_ps(p, (__m512)v);
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) return _mm256_stream_ps(p, (__m256)v);
#endif
  store(p, v);
}
USCONF_INLINE void stream_fence() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}
// Reads n floats into the caches for sweeps whose chains of results leave memory idle: loads that
// wait for nothing get two to three times the rate (docs/decisions/2026-11-22-direct-solver.md).
// Prefetches in between do not: they wait in the same few places that missed loads do.
USCONF_INLINE void fetch(const float* p, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 16)
    (void)*reinterpret_cast<const volatile std::int32_t*>(p + i);
}
USCONF_INLINE Vec splat(float x) { return x - Vec{}; }

// Sum of all lanes, in halves.
template <class T, class V>
USCONF_INLINE T total_of(V v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    return _mm512_reduce_add_ps((__m512)v);
  else if constexpr (std::is_same_v<T, double>)
    return _mm512_reduce_add_pd((__m512d)v);
  else if constexpr (sizeof(T) == 4)
    return _mm512_reduce_add_epi32((__m512i)v);
  else
    return _mm512_reduce_add_epi64((__m512i)v);
#else
  constexpr int n = sizeof(V) / sizeof(T);
  T parts[n];
  __builtin_memcpy(parts, &v, sizeof v);
  USCONF_UNROLL
  for (int half = n / 2; half > 0; half /= 2) {
    USCONF_UNROLL
    for (int j = 0; j < half; ++j) parts[j] += parts[j + half];
  }
  return parts[0];
#endif
}

// rows[i][j] <-> rows[j][i]
template <class V>
USCONF_INLINE void transpose(V* rows) {
  constexpr int n = sizeof(V) / 4;
  // Each round exchanges, between rows i and i + step, the lanes whose index differs in one bit.
  USCONF_UNROLL
  for (int step = 1; step < n; step *= 2) {
    typename Related<V>::Int low, high;
    USCONF_UNROLL
    for (int j = 0; j < n; ++j) {
      low[j] = j & step ? n + j - step : j;
      high[j] = j & step ? n + j : j + step;
    }
    USCONF_UNROLL
    for (int i = 0; i < n; ++i) {
      if (i & step) continue;
      const V a = rows[i], b = rows[i + step];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + step] = __builtin_shuffle(a, b, high);
    }
  }
}

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
