#include "pgm_kernels.h"

#include "pgm_lanes.h"

// One pass over the rows: a row is opened (logarithms, unary terms) and closed against the row
// above it (pairs), whose gradient is complete then. What lies between is two rows, in the first
// cache.
namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

// ln x of the rows beyond the image: no hinge to them is open.
constexpr double beyond = 1e30;
// Vectors whose floats are added before the sum goes on in double: it stays good to 1e-7.
constexpr int vectors_a_sum = 128;

template <class T>
struct Row {
  T *x, *l, *d_l, *g;  // g: the gradient so far
  T *v, *u;            // 1 valid or 0, weight of the terms; both 0 beyond the image's sides
};
constexpr int row_planes = 6;

// Rows of one stretch, `General` ones with a mask, weights, maps or constants.
template <class T, bool Logits>
struct Pass {
  using V = typename PgmLanes<T>::V;
  using Int = typename PgmLanes<T>::Int;
  static constexpr int n = PgmLanes<T>::count;
  typedef T Unaligned __attribute__((vector_size(sizeof(V)), aligned(sizeof(T))));

  const PgmStretch<T> q;

  USCONF_INLINE_MEMBER Row<T> row_at(int index) const {
    T* p = q.scratch + pgm_margin_columns + index * row_planes * q.scratch_stride;
    const long stride = q.scratch_stride;
    return {p, p + stride, p + 2 * stride, p + 3 * stride, p + 4 * stride, p + 5 * stride};
  }
  USCONF_INLINE_MEMBER static V load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  USCONF_INLINE_MEMBER static void store(T* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
  // The first `count` of them, then zeros.
  template <class To, class From>
  USCONF_INLINE_MEMBER static To some(const From* p, int count) {
    To v{};
    for (int j = 0; j < count; ++j) v[j] = p[j];
    return v;
  }
  template <bool Partial>
  USCONF_INLINE_MEMBER static Int bytes(const std::uint8_t* p, int count) {
    return Partial ? some<Int>(p, count) : widened<T>(p);
  }
  // A value by label.
  struct Choice {
#if defined(__AVX2__)
    V table{};
    USCONF_INLINE_MEMBER explicit Choice(const T* of) {
      for (int label = 0; label < 3; ++label) table[label] = of[label];
    }
    USCONF_INLINE_MEMBER V operator()(Int y) const { return __builtin_shuffle(table, y); }
#else
    V none, good, bad;
    USCONF_INLINE_MEMBER explicit Choice(const T* of)
        : none(V{} + of[0]), good(V{} + of[1]), bad(V{} + of[2]) {}
    USCONF_INLINE_MEMBER V operator()(Int y) const {
      return y == Int{} ? none : (y == Int{} + 1 ? good : bad);
    }
#endif
  };
  // What a row's terms need, and their sums.
  struct Unary {
    Choice a, b, c;
    V sum{};
    Int wrong{}, valid{};
  };

  // What is known of n pixels before their logarithms.
  struct Start {
    V z, weight;
    Int y;
  };

  template <bool General, bool Partial>
  USCONF_INLINE_MEMBER Start start(long at, int c, int count, const Row<T>& row,
                                   Unary& unary) const {
    Start s{};
    s.z = Partial ? some<V>(q.given + at, count) : load(q.given + at);
    s.y = bytes<Partial>(q.labels + at, count);
    unary.wrong -= s.y > 2;
    if constexpr (General) {
      if (q.valid) {
        const Int inside = bytes<Partial>(q.valid + at, count) != 0;
        unary.valid -= inside;
        store(row.v + c, inside ? V{} + T(1) : V{});
      }
      if (q.d_map) store(row.u + c, Partial ? some<V>(q.d_map + at, count) : load(q.d_map + at));
      const V v = load(row.v + c);
      s.z = v == V{} ? V{} + T(Logits ? 0 : 0.5) : s.z;
      s.weight = v * load(row.u + c);
    }
    if constexpr (!Logits) unary.wrong += (s.z >= V{} && s.z <= V{} + T(1) ? Int{} : Int{} + 1);
    return s;
  }

  template <bool General, bool Partial>
  USCONF_INLINE_MEMBER void finish(const Start& s, const PgmPixel<V>& p, long at, int c, int count,
                                   const Row<T>& row, Unary& unary) const {
    const V a = unary.a(s.y), b = unary.b(s.y);
    V term = a * p.l + b * p.m, d = a * p.d_l - b * p.d_minus_m;
    if constexpr (General) {
      term = (term + unary.c(s.y)) * s.weight;
      d *= s.weight;
      if (q.unary) put<Partial>(q.unary + at, term, count);
    }
    unary.sum += term;
    store(row.x + c, p.x);
    store(row.l + c, p.l);
    store(row.d_l + c, p.d_l);
    store(row.g + c, d);
  }

  // Row r, columns [c, c + n), of which `count` are in the image.
  template <bool General, bool Partial>
  USCONF_INLINE_MEMBER void open(int r, int c, int count, const Row<T>& row, Unary& unary) const {
    const long at = static_cast<long>(r) * q.width + c;
    const Start s = start<General, Partial>(at, c, count, row, unary);
    finish<General, Partial>(s, pgm_pixel<Logits>(s.z), at, c, count, row, unary);
  }

  // Columns [c, c + 2 n).
  template <bool General>
  USCONF_INLINE_MEMBER void open_two(int r, int c, const Row<T>& row, Unary& unary) const {
    const long at = static_cast<long>(r) * q.width + c;
    const Start s = start<General, false>(at, c, n, row, unary);
    const Start t = start<General, false>(at + n, c + n, n, row, unary);
    const PgmPixel<Twin<V>> p = pgm_pixel<Logits>(Twin<V>{s.z, t.z});
    const PgmPixel<V> one{p.x.a, p.l.a, p.m.a, p.d_l.a, p.d_minus_m.a};
    const PgmPixel<V> two{p.x.b, p.l.b, p.m.b, p.d_l.b, p.d_minus_m.b};
    finish<General, false>(s, one, at, c, n, row, unary);
    finish<General, false>(t, two, at + n, c + n, n, row, unary);
  }

  template <bool Partial>
  USCONF_INLINE_MEMBER static void put(T* to, V v, int count) {
    if constexpr (Partial)
      for (int j = 0; j < count; ++j) to[j] = v[j];
    else
      store(to, v);
  }

  struct Pairs {
    V gamma, s, twice_sigma, d_scale;
    V vertical{}, horizontal{};
  };

  // The pairs within row r and between it and the row above, whose gradient goes to `out`; maps: of
  // row r, or null.
  template <bool General, bool Partial>
  USCONF_INLINE_MEMBER void close(int c, int count, const Row<T>& above, const Row<T>& row, T* out,
                                  T* const* maps, Pairs& pairs) const {
    const V x = load(row.x + c), l = load(row.l + c), d_l = load(row.d_l + c);
    const V l_above = load(above.l + c);
    const V left = x - load(row.x + c - 1), right = load(row.x + c + 1) - x;
    V rise = pgm_rise(l, l_above, pairs.s);
    V hinge = rise > V{} ? pairs.gamma : V{}, pull = left - right, step = left * left;
    if constexpr (General) {
      const V v = load(row.v + c), own = v * load(row.u + c);
      const V pair = load(above.v + c) * own, before = load(row.v + c - 1) * own;
      const V after = v * load(row.v + c + 1) * load(row.u + c + 1);
      hinge *= pair;
      rise *= pair;
      step *= before;
      pull = left * before - right * after;
      if (maps[0]) write_maps<Partial>(maps, c, count, rise * pairs.gamma, step * q.sigma);
    }
    pairs.vertical += rise;
    pairs.horizontal += step;
    const V d_above = load(above.g + c) - hinge * load(above.d_l + c);
    put<Partial>(out + c, d_above * pairs.d_scale, count);
    const V slope = hinge * d_l + pgm_d_x<Logits>(x, d_l) * pull * pairs.twice_sigma;
    store(row.g + c, load(row.g + c) + slope);
  }

  template <bool Partial>
  USCONF_INLINE_MEMBER static void write_maps(T* const* maps, int c, int count, V rise, V step) {
    if (maps[1] == maps[0]) {
      const V unary = Partial ? some<V>(maps[0] + c, count) : load(maps[0] + c);
      put<Partial>(maps[0] + c, unary + rise + step, count);
    } else {
      put<Partial>(maps[1] + c, rise, count);
      put<Partial>(maps[2] + c, step, count);
    }
  }

  template <bool General>
  USCONF_INLINE_MEMBER void open_row(int r, const Row<T>& row, PgmSums* sums) const {
    Unary unary{Choice(q.law.a), Choice(q.law.b), Choice(q.law.c)};
    int c = 0;
    for (int end; c + n <= q.width; c = end) {
      end = next_flush(c);
      unary.sum = V{};
      int i = c;
      for (; i + 2 * n <= end; i += 2 * n) open_two<General>(r, i, row, unary);
      if (i < end) open<General, false>(r, i, n, row, unary);
      sums->unary += static_cast<double>(total_of<T>(unary.sum));
    }
    if (c < q.width) {
      unary.sum = V{};
      open<true, true>(r, c, q.width - c, row, unary);
      sums->unary += static_cast<double>(total_of<T>(unary.sum));
    }
    using Count = typename Made<T>::Int;
    sums->wrong += static_cast<double>(total_of<Count>(unary.wrong));
    sums->valid += q.valid ? static_cast<double>(total_of<Count>(unary.valid)) : q.width;
    close_sides(row);
  }

  // Where to stop adding floats: a whole number of vectors on from c.
  USCONF_INLINE_MEMBER int next_flush(int c) const {
    const int left = (q.width - c) / n;
    return c + n * (left < vectors_a_sum ? left : vectors_a_sum);
  }

  USCONF_INLINE_MEMBER void close_sides(const Row<T>& row) const {
    row.x[-1] = row.x[0];
    row.x[q.width] = row.x[q.width - 1];
  }

  // A row outside of the image.
  USCONF_INLINE_MEMBER void open_beyond(T l, const Row<T>& row) const {
    for (int c = 0; c < q.width; ++c) {
      row.l[c] = l;
      row.x[c] = row.d_l[c] = row.g[c] = 0;
    }
    close_sides(row);
  }

  template <bool General>
  USCONF_INLINE_MEMBER void close_row(const Row<T>& above, const Row<T>& row, T* out,
                                      T* const* maps, PgmSums* sums) const {
    Pairs pairs{V{} + q.gamma, V{} + q.s, V{} + 2 * q.sigma, V{} + q.d_scale};
    const auto flush = [&]() USCONF_INLINE_LAMBDA {
      sums->vertical += static_cast<double>(total_of<T>(pairs.vertical));
      sums->horizontal += static_cast<double>(total_of<T>(pairs.horizontal));
      pairs.vertical = pairs.horizontal = V{};
    };
    int c = 0;
    for (int end; c + n <= q.width; c = end) {
      end = next_flush(c);
      for (int i = c; i < end; i += n) close<General, false>(i, n, above, row, out, maps, pairs);
      flush();
    }
    if (c == q.width) return;
    close<true, true>(c, q.width - c, above, row, out, maps, pairs);
    flush();
  }

  // Everything is valid, with weight 1: what the ends of rows read that are no whole vectors.
  USCONF_INLINE_MEMBER void prefill(const Row<T>& row) const {
    for (int c = -1; c < q.width + n; ++c) {
      row.v[c] = row.u[c] = c >= 0 && c < q.width;
      row.x[c] = row.l[c] = row.d_l[c] = row.g[c] = 0;
    }
  }

  template <bool General>
  USCONF_INLINE_MEMBER void run() const {
    Row<T> above = row_at(0), row = row_at(1);
    prefill(above);
    prefill(row);
    T* spare = row_at(2).x;  // takes the gradient that nobody wants
    PgmSums uncounted{};
    // The neighbours' own terms are another stretch's.
    PgmStretch<T> silent = q;
    silent.unary = nullptr;
    const Pass neighbour{silent};
    if (q.begin > 0)
      neighbour.template open_row<General>(q.begin - 1, above, &uncounted);
    else
      open_beyond(T(beyond), above);
    for (int r = q.begin; r <= q.end; ++r) {
      const long at = static_cast<long>(r) * q.width;
      const bool own = r < q.end;
      PgmSums* sums = own ? q.sums + r / pgm_strip_rows : &uncounted;
      if (own)
        open_row<General>(r, row, sums);
      else if (r < q.height)
        neighbour.template open_row<General>(r, row, sums);
      else
        open_beyond(T(-beyond), row);
      T* const maps[] = {own && q.unary ? q.unary + at : nullptr,
                         own && q.unary ? q.vertical + at : nullptr,
                         own && q.unary ? q.horizontal + at : nullptr};
      close_row<General>(above, row, q.d_given && r > q.begin ? q.d_given + at - q.width : spare,
                         maps, sums);
      const Row<T> used = above;
      above = row;
      row = used;
    }
  }
};

template <class T, bool Logits>
void rows(const PgmStretch<T>& q) {
  const Pass<T, Logits> pass{q};
  const bool constants = q.law.c[0] != 0 || q.law.c[1] != 0 || q.law.c[2] != 0;
  if (q.valid || q.d_map || q.unary || constants)
    pass.template run<true>();
  else
    pass.template run<false>();
}

constexpr PgmKernels table = {{rows<float, true>, rows<float, false>},
                              {rows<double, true>, rows<double, false>}};

}  // namespace

const PgmKernels& pgm_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
