#include "despeckle_kernels.h"

#include "../math/logarithm.h"
#include "vectors.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

template <class T>
void exponentiate(T* row, int n) {
#pragma omp simd
  for (int i = 0; i < n; ++i) row[i] = exp2_bounded(row[i] * T(1.4426950408889634074));
}

template <class T>
void logarithm(const T* row, int n, double low, double scale, T* out) {
#pragma omp simd
  for (int i = 0; i < n; ++i)
    out[i] = static_cast<T>(low + scale * static_cast<double>(log_positive(row[i])));
}

template <class T>
struct Differences {
  T north, south, west, east;
};

template <bool Masked, class T>
USCONF_INLINE Differences<T> differences(const SradRows<T>& r, int i) {
  const T e = r.here[i];
  Differences<T> d{r.north[i] - e, r.south[i] - e, r.here[i - 1] - e, r.here[i + 1] - e};
  if (Masked) {
    d.north *= r.valid_north[i];
    d.south *= r.valid_south[i];
    d.west *= r.valid_here[i - 1];
    d.east *= r.valid_here[i + 1];
  }
  return d;
}

template <bool Masked, class T>
USCONF_INLINE void coefficients_of(const SradRows<T>& given, int n, T q0, T* c) {
  const SradRows<T> r = given;
  const T sharpness = static_cast<T>(srad_sharpness(q0));
#pragma omp simd
  for (int i = 0; i < n; ++i) {
    const Differences<T> d = differences<Masked>(r, i);
    c[i] = srad_coefficient(r.here[i], d.north, d.south, d.west, d.east, q0, sharpness);
  }
  c[n] = c[n - 1];
}

template <class T>
void coefficients(const SradRows<T>& r, int n, T q0, T* c) {
  r.valid_here ? coefficients_of<true>(r, n, q0, c) : coefficients_of<false>(r, n, q0, c);
}

template <bool Masked, class T>
USCONF_INLINE double diffuse_row(const SradRows<T>& given, const T* c, const T* c_south, int n,
                                 T rate, T* out) {
  const SradRows<T> r = given;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; ++i) {
    const Differences<T> d = differences<Masked>(r, i);
    T change = srad_change(c[i], c_south[i], c[i + 1], d.north, d.south, d.west, d.east, rate);
    if (Masked) change *= r.valid_here[i];
    sum += change * change;
    out[i] = r.here[i] + change;
  }
  out[-1] = out[0];
  out[n] = out[n - 1];
  return static_cast<double>(sum);
}

template <class T>
double diffuse(const SradRows<T>& r, const T* c, const T* c_south, int n, T rate, T* out) {
  return r.valid_here ? diffuse_row<true>(r, c, c_south, n, rate, out)
                      : diffuse_row<false>(r, c, c_south, n, rate, out);
}

// A row of a block.
template <class T>
struct BlockRow {
  typedef T Type __attribute__((vector_size(srad_block * sizeof(T))));
  typedef T Unaligned __attribute__((vector_size(srad_block * sizeof(T)), aligned(sizeof(T))));
};

template <class V>
USCONF_INLINE double total(V v) {
  double sum = 0;
  USCONF_UNROLL
  for (int j = 0; j < srad_block / 2; ++j) sum += static_cast<double>(v[j] + v[j + srad_block / 2]);
  return sum;
}

// Sums are of E less the block's first pixel: a variance of 1e-4 beside a mean of 2 keeps its
// digits.
template <bool Masked, class T>
USCONF_INLINE double speckle_of(const T* from, const T* valid, long stride) {
  using V = typename BlockRow<T>::Type;
  using U = typename BlockRow<T>::Unaligned;
  const V pivot = from[0] - V{};
  V sum = {}, squares = {}, count = {};
  USCONF_UNROLL
  for (int r = 0; r < srad_block; ++r) {
    V d = *reinterpret_cast<const U*>(from + r * stride) - pivot;
    if constexpr (Masked) {
      const V m = *reinterpret_cast<const U*>(valid + r * stride);
      d *= m;
      count += m;
    }
    sum += d;
    squares += d * d;
  }
  const double pixels = Masked ? total(count) : double{srad_block * srad_block};
  return srad_speckle(total(sum), total(squares), pixels, static_cast<double>(from[0]));
}

template <class T>
void block_speckle(const T* rows, const T* valid, long stride, const std::uint8_t* support,
                   int blocks, double* speckle) {
  for (int b = 0; b < blocks; ++b) {
    if (!support[b]) continue;
    const long at = static_cast<long>(b) * srad_block;
    speckle[b] = valid ? speckle_of<true>(rows + at, valid + at, stride)
                       : speckle_of<false>(rows + at, valid, stride);
  }
}

// Vectors of T as wide as a Vec of floats.
template <class T>
struct Wide {
  typedef T Type __attribute__((vector_size(sizeof(Vec))));
  typedef T Unaligned __attribute__((vector_size(sizeof(Vec)), aligned(sizeof(T))));
  static constexpr int size = sizeof(Vec) / sizeof(T);
};

template <class V>
USCONF_INLINE void exchange(V& a, V& b) {
  const V low = a < b ? a : b;
  b = a < b ? b : a;
  a = low;
}

// By insertion, which for a few elements is hardly longer than the best network.
template <int N, class V>
USCONF_INLINE void sort(V* v) {
  USCONF_UNROLL
  for (int i = 1; i < N; ++i) {
    USCONF_UNROLL
    for (int j = i; j > 0; --j) exchange(v[j - 1], v[j]);
  }
}

// Of n elements the one in the middle: of a little more than half of them neither the least nor the
// largest can be it; both are dropped and the next one is taken in, until one is left.
template <class V>
USCONF_INLINE V middle(V* v, int n) {
  int held = n / 2 + 2, next = held;
  if (n < 3) return v[0];
  for (;;) {
    const int half = held / 2;
    for (int i = 0; i < half; ++i) exchange(v[i], v[held - 1 - i]);
    V low = v[0], high = v[held - 1];
    const int lows = held - half;  // an odd one in the middle can be either
    for (int i = 1; i < lows; ++i) exchange(low, v[i]);
    for (int i = half; i < held - 1; ++i) exchange(v[i], high);
    if (held == 3) return v[1];
    v[0] = v[next++];
    --held;
  }
}

// Columns are sorted once for all windows that share them. Sorting each rank across the window's
// columns then leaves a table that grows to the right and downwards, in which all but a diagonal
// band of elements have more than half of the others above or below them.
template <class T, int N>
void median_of(const T* const* rows, int n, T* scratch, long stride, T* out) {
  using W = Wide<T>;
  using V = typename W::Type;
  using U = typename W::Unaligned;
  constexpr int half = N / 2, rank = (N * N + 1) / 2;
  for (int c = -half; c < n + half; c += W::size) {
    V v[N];
    for (int i = 0; i < N; ++i) v[i] = *reinterpret_cast<const U*>(rows[i] + c);
    sort<N>(v);
    for (int i = 0; i < N; ++i) *reinterpret_cast<U*>(scratch + i * stride + c) = v[i];
  }
  for (int c = 0; c < n; c += W::size) {
    V band[N * N];
    int held = 0;
    for (int i = 0; i < N; ++i) {
      V v[N];
      for (int j = 0; j < N; ++j)
        v[j] = *reinterpret_cast<const U*>(scratch + i * stride + c + j - half);
      sort<N>(v);
      for (int j = 0; j < N; ++j)
        if ((i + 1) * (j + 1) <= rank && (N - i) * (N - j) <= rank) band[held++] = v[j];
    }
    const V found = middle(band, held);
    for (int j = 0; j < W::size && c + j < n; ++j) out[c + j] = found[j];
  }
}

template <class T>
void median(const T* const* rows, int size, int n, T* scratch, long stride, T* out) {
  switch (size) {
    case 1:
      return median_of<T, 1>(rows, n, scratch, stride, out);
    case 3:
      return median_of<T, 3>(rows, n, scratch, stride, out);
    case 5:
      return median_of<T, 5>(rows, n, scratch, stride, out);
    case 7:
      return median_of<T, 7>(rows, n, scratch, stride, out);
    case 9:
      return median_of<T, 9>(rows, n, scratch, stride, out);
    case 11:
      return median_of<T, 11>(rows, n, scratch, stride, out);
    case 13:
      return median_of<T, 13>(rows, n, scratch, stride, out);
    default:
      return median_of<T, 15>(rows, n, scratch, stride, out);
  }
}

constexpr DespeckleKernels table = {{exponentiate<float>, logarithm<float>, coefficients<float>,
                                     diffuse<float>, block_speckle<float>, median<float>},
                                    {exponentiate<double>, logarithm<double>, coefficients<double>,
                                     diffuse<double>, block_speckle<double>, median<double>}};

}  // namespace

const DespeckleKernels& despeckle_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
