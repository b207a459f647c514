#include "scan_conversion_kernels.h"

#include <cstring>

#include "../math/half.h"
#include "scan_conversion_pixels.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// What a pixel type is computed in.
template <class T>
struct Wide {
  typedef float Type;
};
template <>
struct Wide<double> {
  typedef double Type;
};
template <class T>
using WideOf = typename Wide<T>::Type;

template <class T>
constexpr bool can_be_nan = false;
template <>
constexpr bool can_be_nan<Half> = true;
template <>
constexpr bool can_be_nan<float> = true;
template <>
constexpr bool can_be_nan<double> = true;

template <class T>
USCONF_INLINE WideOf<T> widen(T v) {
  return v;
}
USCONF_INLINE float widen(Half v) { return half_to_float(v.bits); }

template <class T>
USCONF_INLINE void narrow(float v, T* out) {
  *out = static_cast<T>(__builtin_lrintf(v));
}
USCONF_INLINE void narrow(float v, float* out) { *out = v; }
USCONF_INLINE void narrow(double v, double* out) { *out = v; }
USCONF_INLINE void narrow(float v, Half* out) { out->bits = float_to_half(v); }

// From a to b; a pixel of weight 0 may hold NaN.
template <class W>
USCONF_INLINE W between(W a, W b, W share) {
  if (share == 1) return b;
  return share == 0 ? a : a + share * (b - a);
}

// One footprint at a time: where there are no vectors, or images of one column.
template <class T, class W>
USCONF_INLINE void one_by_one(const ScanTable<W>& t, const ScanRun& r, FootprintSteps steps,
                              const T* source, T* target) {
  for (int k = 0; k < r.length; ++k) {
    const T* p = source + t.index[r.entry + k];
    const W right = t.right[r.entry + k], down = t.down[r.entry + k];
    const W above = between<W>(widen(p[0]), widen(p[steps.right]), right);
    const W below = between<W>(widen(p[steps.down]), widen(p[steps.down + steps.right]), right);
    narrow(between(above, below, down), target + r.begin + k);
  }
}

#if defined(__AVX2__)
template <bool Careful, class V>
USCONF_INLINE V between_vectors(V a, V b, V share) {
  const V mean = a + share * (b - a);
  if constexpr (!Careful) return mean;
  return where_equal(share, 0, a, where_equal(share, 1, b, mean));
}

template <bool Careful, class W, class V>
USCONF_INLINE V mean_of(const Pair<W>& above, const Pair<W>& below, V right, V down) {
  return between_vectors<Careful>(between_vectors<Careful>(above.left, above.right, right),
                                  between_vectors<Careful>(below.left, below.right, right), down);
}

template <class T, class W>
USCONF_INLINE void by_vectors(const ScanTable<W>& t, const ScanRun& r, std::int64_t step,
                              const T* source, T* target) {
  typedef decltype(get(t.right)) V;
  constexpr int lanes = sizeof(V) / sizeof(W);
  const std::int32_t* index = t.index + r.entry;
  const W *rights = t.right + r.entry, *downs = t.down + r.entry;
  T* out = target + r.begin;
  const auto vector = [&](int k) USCONF_INLINE_LAMBDA {
    const V right = get(rights + k), down = get(downs + k);
    const Pair<W> above = pairs(source, index + k), below = pairs(source + step, index + k);
    if constexpr (can_be_nan<T>)  // 0 times NaN is NaN
      if (any_zero((right - right * right) * (down - down * down)))
        return mean_of<true>(above, below, right, down);
    return mean_of<false>(above, below, right, down);
  };
  int k = 0;
  for (; k + lanes <= r.length; k += lanes) put(out + k, vector(k));
  if (k == r.length) return;
  T rest[lanes];
  put(rest, vector(k));  // entries go on up to a whole vector
  std::memcpy(out + k, rest, (r.length - k) * sizeof(T));
}
#endif

template <class T, class W>
USCONF_INLINE void border_pixel(const BorderPixel<W>& b, FootprintSteps steps, const T* source,
                                T* target) {
  const T* p = source + b.index;
  const std::int64_t at[4] = {0, steps.right, steps.down, steps.down + steps.right};
  W sum = 0;
  for (int k = 0; k < 4; ++k) sum += b.weight[k] != 0 ? b.weight[k] * W(widen(p[at[k]])) : W(0);
  narrow(sum, target + b.pixel);
}

template <class T>
void bilinear(const void* table, const ScanRun* runs, std::int64_t count, FootprintSteps steps,
              const void* from, void* to) {
  const auto t = *static_cast<const ScanTable<WideOf<T>>*>(table);
  const T* source = static_cast<const T*>(from);
  T* target = static_cast<T*>(to);
  for (std::int64_t i = 0; i < count; ++i) {
    const ScanRun& r = runs[i];
    std::memset(target + r.zero_from, 0, (r.begin - r.zero_from) * sizeof(T));
#if defined(__AVX2__)
    if (steps.right)
      by_vectors(t, r, steps.down, source, target);
    else
#endif
      one_by_one(t, r, steps, source, target);
    for (std::int64_t k = r.border; k < r.border_end; ++k)
      border_pixel(t.border[k], steps, source, target);
  }
}

// T: unsigned integer of the pixel's size
template <class T>
void nearest(const std::int32_t* index, const ScanRun* runs, std::int64_t count, const void* from,
             void* to) {
  const T* source = static_cast<const T*>(from);
  T* target = static_cast<T*>(to);
  for (std::int64_t i = 0; i < count; ++i) {
    const ScanRun& r = runs[i];
    std::memset(target + r.zero_from, 0, (r.begin - r.zero_from) * sizeof(T));
    for (int k = 0; k < r.length; ++k) target[r.begin + k] = source[index[r.entry + k]];
  }
}

template <class T>
void transposed(const void* table, std::int64_t begin, std::int64_t end, const void* from,
                void* to) {
  typedef WideOf<T> W;
  const TransposedTable<W> t = *static_cast<const TransposedTable<W>*>(table);
  const T* source = static_cast<const T*>(from);
  T* target = static_cast<T*>(to);
  for (std::int64_t i = begin; i < end; ++i) {
    W sum = 0;
    for (std::int64_t k = t.start[i]; k < t.start[i + 1]; ++k)
      sum += t.weight[k] * W(widen(source[t.index[k]]));
    narrow(sum, target + i);
  }
}

constexpr ScanConversionKernels table = {
    {bilinear<std::uint8_t>, bilinear<std::uint16_t>, bilinear<std::int16_t>, bilinear<Half>,
     bilinear<float>, bilinear<double>},
    {nearest<std::uint8_t>, nearest<std::uint16_t>, nearest<std::uint16_t>, nearest<std::uint16_t>,
     nearest<std::uint32_t>, nearest<std::uint64_t>},
    {nullptr, nullptr, nullptr, transposed<Half>, transposed<float>, transposed<double>},
};

}  // namespace

const ScanConversionKernels& scan_conversion_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
