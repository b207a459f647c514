#include "assembly_kernels.h"

#include "pixel_types.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

constexpr std::uint8_t outside = static_cast<std::uint8_t>(Label::outside);
constexpr double infinity = __builtin_inf();

// Pixel types narrower than double are compared as they are: extremes are exact in any type.
template <class P>
USCONF_INLINE Extremes extremes_of(const P* p, const std::uint8_t* label, long n) {
  if (label) {
    Extremes e{infinity, -infinity};
    for (long i = 0; i < n; ++i) {
      const double v = p[i];
      if (label[i] == outside) continue;
      e.low = v < e.low ? v : e.low;
      e.high = v > e.high ? v : e.high;
    }
    return e;
  }
  P low = p[0], high = p[0];
#pragma omp simd reduction(min : low) reduction(max : high)
  for (long i = 0; i < n; ++i) {
    low = p[i] < low ? p[i] : low;
    high = p[i] > high ? p[i] : high;
  }
  return {static_cast<double>(low), static_cast<double>(high)};
}

Extremes extremes_of(const Half* p, const std::uint8_t* label, long n) {
  Extremes e{infinity, -infinity};
  for (long i = 0; i < n; ++i) {
    const double v = p[i];
    const bool counts = !label || label[i] != outside;
    e.low = counts && v < e.low ? v : e.low;
    e.high = counts && v > e.high ? v : e.high;
  }
  return e;
}

Extremes extremes(Scalar scalar, const void* image, const std::uint8_t* label, long n) {
  return with_type(scalar, image, [=](auto* p) { return extremes_of(p, label, n); });
}

void attenuate_fixed(Scalar scalar, const void* image, long n, double low, double scale,
                     std::int32_t* out) {
  const double unit = scale * fixed_point;
  with_type(scalar, image, [=](auto* p) {
#pragma omp simd
    for (long i = 0; i < n; ++i) {
      // Valid pixels lie in [0, 1]; those outside a mask may hold anything, NaN too.
      double c = (static_cast<double>(p[i]) - low) * unit + 0.5;
      c = c < fixed_point ? c : fixed_point;
      c = c > 0 ? c : 0;
      out[i] = static_cast<std::int32_t>(c);
    }
  });
}

void attenuate(Scalar scalar, const void* image, long n, double low, double scale, double* out) {
  with_type(scalar, image, [=](auto* p) {
#pragma omp simd
    for (long i = 0; i < n; ++i) out[i] = (static_cast<double>(p[i]) - low) * scale;
  });
}

template <class C>
USCONF_INLINE C difference(C a, C b) {
  return a < b ? b - a : a - b;
}

// Largest |a[i] - b[i]| over i in [0, n) where both labels are inside; -1: none.
template <class C>
USCONF_INLINE C largest(const C* a, const C* b, const std::uint8_t* label_a,
                        const std::uint8_t* label_b, int n) {
  C m = -1;
  if (!label_a) {
#pragma omp simd reduction(max : m)
    for (int i = 0; i < n; ++i) {
      const C d = difference(a[i], b[i]);
      m = d > m ? d : m;
    }
  } else {
#pragma omp simd reduction(max : m)
    for (int i = 0; i < n; ++i) {
      C d = difference(a[i], b[i]);
      d = label_a[i] == outside || label_b[i] == outside ? C(-1) : d;
      m = d > m ? d : m;
    }
  }
  return m;
}

template <class C>
Maxima maxima_of(const C* row, const C* next, const std::uint8_t* label,
                 const std::uint8_t* label_next, int columns) {
  const auto at = [](const std::uint8_t* l, int i) { return l ? l + i : nullptr; };
  C lateral = largest(row, row + 1, label, at(label, 1), columns - 1);
  if (!next) return {static_cast<double>(lateral), -1.0};
  const C vertical = largest(row, next, label, label_next, columns);
  const C right = largest(row, next + 1, label, at(label_next, 1), columns - 1);
  const C left = largest(row + 1, next, at(label, 1), label_next, columns - 1);
  lateral = right > lateral ? right : lateral;
  lateral = left > lateral ? left : lateral;
  return {static_cast<double>(lateral), static_cast<double>(vertical)};
}

template <class C, class T>
USCONF_INLINE void weigh(const C* a, const C* b, int n, T slope, T offset, T floor, T* out) {
#pragma omp simd
  for (int i = 0; i < n; ++i)
    out[i] = edge_weight<T>(static_cast<T>(difference(a[i], b[i])), slope, offset, floor);
}

// unit: what one unit of C is worth in c
template <class C, class T>
void weigh_row(const EdgeLaw& law, double unit, const C* row, const C* next, int columns,
               EdgeRow<T> out) {
  // A slope beyond T's range means weights at the floor wherever d > 0, as the largest one does;
  // but infinity times d = 0 would be NaN.
  constexpr double most = sizeof(T) == 4 ? 1e37 : 1e300;
  const double wanted = law.slope * unit;
  const T slope = static_cast<T>(wanted < most ? wanted : most), floor = static_cast<T>(law.floor);
  const T lateral = static_cast<T>(law.offset[0]), vertical = static_cast<T>(law.offset[1]);
  weigh(row, row + 1, columns - 1, slope, lateral, floor, out.right);
  out.right[columns - 1] = 0;
  if (!next) {
    for (int i = 0; i < columns; ++i) out.below[i] = out.below_right[i] = out.below_left[i] = 0;
    return;
  }
  weigh(row, next, columns, slope, vertical, floor, out.below);
  weigh(row, next + 1, columns - 1, slope, lateral, floor, out.below_right);
  out.below_right[columns - 1] = 0;
  weigh(row + 1, next, columns - 1, slope, lateral, floor, out.below_left + 1);
  out.below_left[0] = 0;
}

template <class T>
void seed_row(EdgeRow<const T> above, EdgeRow<const T> here, const std::uint8_t* label_above,
              const std::uint8_t* label, const std::uint8_t* label_below, int columns,
              EdgeRow<T> out, T* source, T* sink) {
  const auto is = [](std::uint8_t l, Label wanted) {
    return l == static_cast<std::uint8_t>(wanted);
  };
  for (int i = 0; i < columns; ++i) {
    const bool free = is(label[i], Label::free);
    T to_source = 0, to_sink = 0;
    const auto neighbour = [&](std::uint8_t l, T w) {
      if (is(l, Label::source))
        to_source += w;
      else if (is(l, Label::sink))
        to_sink += w;
      return free && is(l, Label::free) ? w : T(0);
    };
    const bool left = i > 0, right = i + 1 < columns;
    if (left) neighbour(label[i - 1], here.right[i - 1]);
    out.right[i] = right ? neighbour(label[i + 1], here.right[i]) : T(0);
    if (label_above) {
      neighbour(label_above[i], above.below[i]);
      if (left) neighbour(label_above[i - 1], above.below_right[i - 1]);
      if (right) neighbour(label_above[i + 1], above.below_left[i + 1]);
    }
    out.below[i] = label_below ? neighbour(label_below[i], here.below[i]) : T(0);
    out.below_right[i] =
        label_below && right ? neighbour(label_below[i + 1], here.below_right[i]) : T(0);
    out.below_left[i] =
        label_below && left ? neighbour(label_below[i - 1], here.below_left[i]) : T(0);
    source[i] = free ? to_source : T(0);
    sink[i] = free ? to_sink : T(0);
  }
}

constexpr AssemblyKernels table = {
    extremes,
    attenuate_fixed,
    attenuate,
    maxima_of<std::int32_t>,
    maxima_of<double>,
    weigh_row<std::int32_t, float>,
    weigh_row<double, float>,
    weigh_row<double, double>,
    seed_row<float>,
    seed_row<double>,
};

}  // namespace

const AssemblyKernels& assembly_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
