// The widest float vectors of the instruction set a per-ISA source is compiled for. Included by
// *_kernels.cpp only.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define USCONF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define USCONF_UNROLL _Pragma("GCC unroll 16")
#endif
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

typedef float Vec __attribute__((vector_size(4 * lanes), may_alias));
typedef std::int32_t IntVec __attribute__((vector_size(4 * lanes), may_alias));
typedef float UnalignedVec __attribute__((vector_size(4 * lanes), aligned(4), may_alias));

USCONF_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
USCONF_INLINE Vec load_unaligned(const float* p) {
  return *reinterpret_cast<const UnalignedVec*>(p);
}
USCONF_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
USCONF_INLINE void store_unaligned(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
// Past the caches: for results that are not read again soon.
USCONF_INLINE void stream(float* p, Vec v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)v);
#else
  store(p, v);
#endif
}
USCONF_INLINE void stream_fence() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}
USCONF_INLINE Vec splat(float x) { return x - Vec{}; }

// rows[i][j] <-> rows[j][i]
USCONF_INLINE void transpose(Vec* rows) {
  // Round k exchanges, between rows i and i + step, the lanes whose index differs in one bit.
  USCONF_UNROLL
  for (int step = 1; step < lanes; step *= 2) {
    IntVec low, high;
    USCONF_UNROLL
    for (int j = 0; j < lanes; ++j) {
      low[j] = j & step ? lanes + j - step : j;
      high[j] = j & step ? lanes + j : j + step;
    }
    USCONF_UNROLL
    for (int i = 0; i < lanes; ++i) {
      if (i & step) continue;
      const Vec a = rows[i], b = rows[i + step];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + step] = __builtin_shuffle(a, b, high);
    }
  }
}

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
