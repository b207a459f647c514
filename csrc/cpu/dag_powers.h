// D^power in vectors. Included by *_kernels.cpp only.
#pragma once

#include "dag_kernels.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

USCONF_INLINE Vec absolute(Vec v) { return (Vec)((IntVec)v & 0x7fffffff); }

// D^power by table; see dag_raise_degree. Needs one: not for power 1.
struct Raise {
#if defined(__AVX2__)
  explicit Raise(const float* table) {
    for (int j = 0; j <= dag_raise_degree; ++j) p[j] = table[dag_octaves + j];
    for (int j = 0; j < dag_octaves / lanes; ++j) octaves[j] = load_unaligned(table + j * lanes);
  }
  USCONF_INLINE_MEMBER Vec operator()(Vec d) const {
    const IntVec bits = (IntVec)d;
    const IntVec octave = (bits >> 23) - (127 + dag_first_octave);
    const Vec z = (Vec)((bits & 0x7fffff) | 0x3f800000) - 1.5f;
    Vec mantissa = splat(p[dag_raise_degree]);
    USCONF_UNROLL
    for (int j = dag_raise_degree - 1; j >= 0; --j) mantissa = mantissa * z + p[j];
#if defined(__AVX512F__)
    return mantissa * __builtin_shuffle(octaves[0], octave);
#else
    return mantissa * __builtin_shuffle(octaves[0], octaves[1], octave);
#endif
  }
  float p[dag_raise_degree + 1];
  Vec octaves[dag_octaves / lanes];
#else
  explicit Raise(const float*) {}
  Vec operator()(Vec d) const { return d; }  // there is no table
#endif
};

struct PowerOne {
  explicit PowerOne(const float*) {}
};

}  // namespace
}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
