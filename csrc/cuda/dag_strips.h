// How the sweeps of the DAG maps share out a frame, and the window of a row in shared memory that
// both directions read.
//
// A block takes a strip of columns and some rows at a time; each row needs R columns more on both
// sides than the next one, so a block begins with rows * R columns beyond its own and computes ever
// fewer of them: nothing is exchanged within a launch. One strip as wide as the image and all rows
// is the ordinary case, a launch for any number of frames.
#pragma once

#include "dag.h"

#if !defined(USCONF_EMULATE)
#define USCONF_DYNAMIC_SHARED(type, name)                    \
  extern __shared__ __align__(16) unsigned char name##_of[]; \
  type* name = reinterpret_cast<type*>(name##_of)
#endif

namespace usconf::cuda {

constexpr int strip_threads = 512;                // at most, two columns each
constexpr int strip_columns = 2 * strip_threads;  // that a block computes at most
constexpr int least_strip_threads = 64;

struct Strips {
  int own;   // columns a block is there for
  int rows;  // rows a launch
};

// Counted in clocks of a multiprocessor, not measured. A float edge is 9 to 11 instructions of 128
// a clock (2 R + 2 edges a column, one of them wasted on pairing columns), a double one some 100; a
// row's barrier and the latency of its chain 250; a launch that waits for its forerunner 4000.
// 512 x 512 alone: one block 1000 clocks a row; strips of 64 columns and 8 rows 560 and the
// launch's 500. 1024 x 1024: 1800 against 1100. Many frames: one block each, without overlap.
inline Strips choose_strips(int frames, int height, int width, int half_width, bool is_double) {
  constexpr double multiprocessors = 132, launch = 4000, latency = 250;
  const int steps = height > 1 ? height - 1 : 1;
  const double column = (2 * half_width + 2) * (is_double ? 100 : 10) / 128.0;
  Strips best{0, 0};
  double least = 0;
  const auto consider = [&](int own, int rows) {
    if (rows > steps) rows = steps;
    const long long extent = own < width ? own + 2ll * rows * half_width : width;
    if (extent > strip_columns && !(own >= width && width <= strip_columns)) return;
    const long long strips = (width + own - 1) / own;
    const double waves = std::ceil(static_cast<double>(strips) * frames / multiprocessors);
    const double launches = std::ceil(static_cast<double>(steps) / rows);
    double mean = own < width ? own + static_cast<double>(rows - 1) * half_width : width;
    mean = mean < width ? mean : width;
    const double cost = launches * (launch + rows * waves * (mean * column + latency));
    if (best.own == 0 || cost < least) best = {own, rows}, least = cost;
  };
  if (width <= strip_columns) consider(width, steps);
  for (int own = 32; own < width && own <= strip_columns; own *= 2)
    for (int rows = 1; rows <= 32; rows *= 2) consider(own, rows);
  return best;
}

inline int strip_extent(const Strips& g, int half_width, int width) {
  const long long extent = g.own + 2ll * g.rows * half_width;
  return static_cast<int>(g.own >= width || extent > width ? width : extent);
}

// The columns of one block: those it is there for, those it begins with.
struct Part {
  int own_from, own_to, from, to;

  __device__ Part(int own, int reach, int width) {
    own_from = blockIdx.x * own;
    own_to = min(own_from + own, width);
    from = max(own_from - reach, 0);
    to = min(own_to + reach, width);
  }
  __device__ bool owns(int column) const { return column >= own_from && column < own_to; }
  // Whether a column is still needed when so many columns follow on either side.
  __device__ bool needs(int column, int reach) const {
    return column >= own_from - reach && column < min(own_to + reach, to);
  }
};

template <class T>
struct alignas(2 * sizeof(T)) Node {
  T f, value;
};
// What the edges of one slot of one row share. rate, offset: exponent of the plain case as a
// multiple of |difference| plus a constant.
template <class T>
struct alignas(4 * sizeof(T)) Slot {
  T rate, offset, beam, inverse;
};

// Position p is column from + p - R. Even and odd positions lie apart: threads with two columns
// each then read without bank conflicts, and each node serves both columns.
template <class T>
struct Window {
  Node<T>* nodes;
  int half;  // nodes of each parity

  static __host__ __device__ int half_of(int columns, int half_width) {
    return (columns + 2 * half_width + 2) / 2;
  }
  __device__ const Node<T>& even(int i) const { return nodes[i]; }
  __device__ const Node<T>& odd(int i) const { return nodes[half + i]; }
  __device__ void put(int position, const Node<T>& node) const {
    if (position >= 0 && position < 2 * half) nodes[position % 2 * half + position / 2] = node;
  }
  // A column's own place and its mirror images beyond the sides, all of them where the image is
  // narrower than R.
  __device__ void put_mirrored(int column, int from, int half_width, int width,
                               const Node<T>& node) const {
    const int shift = half_width - from;
    put(column + shift, node);
    if (column >= half_width && column < width - half_width) return;
    for (int turn = 2 * width; turn - column - 1 < width + half_width; turn += 2 * width) {
      put(turn - 1 - column + shift, node);
      put(turn + column + shift, node);
    }
    for (int turn = 0; -1 - column - turn >= -half_width; turn += 2 * width) {
      put(-1 - column - turn + shift, node);
      put(column - 2 * width - turn + shift, node);
    }
  }
};

template <class T>
std::size_t strip_bytes(int columns, int half_width) {
  return 4 * static_cast<std::size_t>(Window<T>::half_of(columns, half_width)) * sizeof(Node<T>) +
         2 * static_cast<std::size_t>(2 * half_width + 3) * sizeof(Slot<T>);
}

// Shared memory of a block: two windows and two rows of slots, one being read, one being written.
// Slots -1 and 2 R + 1 stay 0, for the edges that pairing columns adds.
template <class T>
class StripMemory {
 public:
  __device__ StripMemory(void* memory, int columns, int half_width)
      : nodes_(static_cast<Node<T>*>(memory)),
        half_(Window<T>::half_of(columns, half_width)),
        count_(2 * half_width + 1) {
    for (int i = threadIdx.x; i < 4 * half_; i += blockDim.x) nodes_[i] = {T(0), T(0)};
    for (int i = threadIdx.x; i < 2 * (count_ + 2); i += blockDim.x) slots(0)[i - 1] = {};
    __syncthreads();
  }
  // which: 0 or 1.
  __device__ Window<T> window(int which) const { return {nodes_ + which * 2 * half_, half_}; }
  __device__ Slot<T>* slots(int which) const {
    return reinterpret_cast<Slot<T>*>(nodes_ + 4 * half_) + 1 + which * (count_ + 2);
  }
  // The slots of a row. ahead: 1 / mean of the thread's own one, fetched earlier.
  __device__ void put_slots(int which, const DagScene<T>& s, int frame, int row, T scale, T floor,
                            T ahead, T beam) const {
    Slot<T>* to = slots(which);
    const auto put = [&](int k, T inverse, T weight) {
      const T rate = inverse * scale;
      to[k] = {rate, rate * floor, weight, inverse};
    };
    const int k = threadIdx.x;
    if (k < count_) put(k, ahead, beam);
    for (int j = k + blockDim.x; j < count_; j += blockDim.x)
      put(j, s.inverse[s.row_slots(frame, row) + j], s.beam[j]);
  }

 private:
  Node<T>* nodes_;
  int half_, count_;
};

// What a row shares and its thread's own slot, fetched a row early.
template <class T>
struct RowAhead {
  T inverse, scale, largest;

  __device__ void fetch(const DagScene<T>& s, int frame, int row) {
    if (static_cast<int>(threadIdx.x) < s.slots())
      inverse = s.inverse[s.row_slots(frame, row) + threadIdx.x];
    scale = s.scale[row];
    largest = s.largest[static_cast<long long>(frame) * (s.height - 1) + row];
  }
};

// 1 - exp(-t). A row keeps |C| within rounding only where the loss of each edge is right
// relative to itself: 1 - 6e-8 rounds by as much as the loss of a thousand rows' worth of an edge.
// Polynomials for (1 - exp(-t)) / t through the Chebyshev nodes of [0, 1/4] and [0, 1], relative
// errors 2.8e-7 and 1.8e-7 in floats. Usual rows stay below 1/4 (x d_r is 0.005 at 512 rows, rel
// 20 at most), and four multiply-adds take less time than the exponential of the special unit,
// whose 16 a clock alone would take 670 clocks for a row of 512.
struct Small {
  static __device__ __forceinline__ float loss(float t) {
    float p = -0.037728973f;
    p = p * t + 0.16606225f;
    p = p * t - 0.49996999f;
    p = p * t + 0.99999976f;
    return p * t;
  }
  static __device__ __forceinline__ double loss(double t) { return loss_of(t); }
};
constexpr float small_exponent = 0.25f;

struct Any {
  static __device__ __forceinline__ float loss(float t) {
    const float u = t < 1.0f ? t : 1.0f;
    float p = -0.00091254537f;
    p = p * u + 0.0078373636f;
    p = p * u - 0.041418765f;
    p = p * u + 0.16660967f;
    p = p * u - 0.49999517f;
    p = p * u + 0.99999994f;
    return t < 1.0f ? p * u : 1.0f - exp2f(-1.44269504f * t);
  }
  static __device__ __forceinline__ double loss(double t) { return loss_of(t); }
};

}  // namespace usconf::cuda
