#include "intensity_kernels.h"

#include "pixel_types.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

constexpr double infinity = __builtin_inf();

template <class P>
USCONF_INLINE IntensityRange range_of(const P* p, long n) {
  P low = p[0], high = p[0];
#pragma omp simd reduction(min : low) reduction(max : high)
  for (long i = 0; i < n; ++i) {
    low = p[i] < low ? p[i] : low;
    high = p[i] > high ? p[i] : high;
  }
  return {static_cast<double>(low), static_cast<double>(high)};
}
USCONF_INLINE IntensityRange range_of(const Half* p, long n) {
  double low = infinity, high = -infinity;
  for (long i = 0; i < n; ++i) {
    const double v = p[i];
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  return {low, high};
}

IntensityRange range(Scalar scalar, const void* image, const std::uint8_t* valid, long n) {
  return with_type(scalar, image, [=](auto* p) {
    if (!valid) return range_of(p, n);
    IntensityRange e{infinity, -infinity};
    for (long i = 0; i < n; ++i) {
      if (!valid[i]) continue;
      const double v = p[i];
      e.low = v < e.low ? v : e.low;
      e.high = v > e.high ? v : e.high;
    }
    return e;
  });
}

template <class T>
USCONF_INLINE void scale_to(Scalar scalar, const void* image, const std::uint8_t* valid, long n,
                            double low, double factor, T* out) {
  with_type(scalar, image, [=](auto* p) {
    if (valid) {
      for (long i = 0; i < n; ++i)
        out[i] = valid[i] ? static_cast<T>((static_cast<double>(p[i]) - low) * factor) : T(0);
      return;
    }
#pragma omp simd
    for (long i = 0; i < n; ++i)
      out[i] = static_cast<T>((static_cast<double>(p[i]) - low) * factor);
  });
}

void scale_float(Scalar scalar, const void* image, const std::uint8_t* valid, long n, double low,
                 double scale, float* out) {
  scale_to(scalar, image, valid, n, low, scale, out);
}

void scale_double(Scalar scalar, const void* image, const std::uint8_t* valid, long n, double low,
                  double scale, double* out) {
  scale_to(scalar, image, valid, n, low, scale, out);
}

constexpr IntensityKernels table = {range, scale_float, scale_double};

}  // namespace

const IntensityKernels& intensity_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
