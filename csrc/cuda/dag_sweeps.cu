// The recurrence of the DAG maps and its reverse: a block sweeps a strip of the image row by row,
// one barrier a row. The row it reads and the row it writes lie in shared memory, f and C (or what
// came from below) side by side; the pixels and row means of the row after are under way meanwhile.
#include <algorithm>

#include "dag_strips.h"

namespace usconf::cuda {
namespace {

// Sum over a child's edges of g (C_parent exp(-t) - C_above), C_above being the parent straight
// above: what g's own rounding adds then vanishes where C is flat, instead of drifting by 1e-8 a
// row.
template <class T>
struct Gathered {
  T above, sum, beam;
};

template <class Loss, class T>
__device__ __forceinline__ void add_plain(Gathered<T>& g, T child, const Node<T>& parent,
                                          const Slot<T>& slot) {
  const T loss = Loss::loss(absolute(parent.f - child) * slot.rate + slot.offset);
  T change = parent.value - g.above;
  change -= loss * parent.value;
  g.sum += slot.beam * change;
}

// Parents below 0 are invalid.
template <class T>
__device__ __forceinline__ void add_general(Gathered<T>& g, T child, const Node<T>& parent,
                                            const Slot<T>& slot, const EdgeRules<T>& law, T scale) {
  if (parent.value < 0 || slot.beam == 0) return;
  const T rel = relative(law, parent.f - child, child, slot.inverse);
  const T loss = loss_of(exponent(rel, law.power, scale));
  T change = parent.value - g.above;
  change -= loss * parent.value;
  g.sum += slot.beam * change;
  g.beam += slot.beam;
}

// Calls add(column of the pair, node, slot) for the edges of two neighbouring columns.
template <class T, class Add>
__device__ __forceinline__ void each_edge_down(const Window<T>& w, const Slot<T>* slots,
                                               int half_width, Add&& add) {
  const int first = threadIdx.x;
  Slot<T> before = slots[-1];
#pragma unroll 2
  for (int i = 0; i <= half_width; ++i) {
    const Node<T> even = w.even(first + i), odd = w.odd(first + i);
    const Slot<T> here = slots[2 * i], after = slots[2 * i + 1];
    add(0, even, here);
    add(1, even, before);
    add(0, odd, after);
    add(1, odd, here);
    before = after;
  }
}

// before, after: C at the row that the strips begin and end with, -1 where invalid.
template <class T, bool plain>
__global__ void __launch_bounds__(strip_threads, 1)
    sweep_down_kernel(DagScene<T> s, int own, int first_row, int rows, const T* __restrict__ before,
                      T* __restrict__ after, Plane map, bool raw) {
  USCONF_DYNAMIC_SHARED(unsigned char, memory);
  const int frame = blockIdx.y, half_width = s.half_width, tid = threadIdx.x;
  const Part part(own, rows * half_width, s.width);
  const StripMemory<T> shared(memory, part.to - part.from, half_width);
  const int column = part.from + 2 * tid;
  const EdgeRules<T> law = edges_of(s, frame);
  const auto finish = [&](int row, int c, T f, T value, bool last) {
    if (!plain && value >= 0) value = min(value, static_cast<T>(s.clamp_of(frame, row)));
    if (part.owns(c)) {
      const T scale = plain || raw ? T(1) : static_cast<T>(s.output_scale(frame, row, c));
      // f - f: NaN with a unit that is, which the clamps of the recurrence would hide.
      map.put(frame * s.pixels() + s.at(row, c), value < 0 ? T(0) : value * scale + (f - f));
      if (last) after[static_cast<long long>(frame) * s.width + c] = value;
    }
    return Node<T>{f, value};
  };

  T ahead[2] = {}, model[2] = {};  // of the row below
  const auto fetch = [&](int row) {
    for (int j = 0; j < 2; ++j) {
      if (column + j >= part.to) continue;
      ahead[j] = s.pixel(frame, row, column + j);
      if (!plain) model[j] = s.model_of(frame, row - 1, column + j);
    }
  };
  RowAhead<T> row_ahead{};
  const T beam = tid < s.slots() ? s.beam[tid] : T(0);
  for (int j = 0; j < 2; ++j) {
    const int c = column + j;
    if (c >= part.to) continue;
    T value;
    if (first_row > 0)
      value = before[static_cast<long long>(frame) * s.width + c];
    else
      value = s.is_valid(frame, 0, c) ? T(1) : T(-1);
    const T f = s.pixel(frame, first_row, c);
    const Node<T> node = first_row > 0 ? Node<T>{f, value} : finish(0, c, f, value, rows == 0);
    shared.window(0).put_mirrored(c, part.from, half_width, s.width, node);
  }
  if (rows > 0) {
    fetch(first_row + 1);
    row_ahead.fetch(s, frame, first_row);
    shared.put_slots(0, s, frame, first_row, row_ahead.scale, law.floor, row_ahead.inverse, beam);
  }
  __syncthreads();

  for (int i = 0; i < rows; ++i) {
    const int row = first_row + i, reach = (rows - 1 - i) * half_width;
    const Window<T> window = shared.window(i & 1);
    const Slot<T>* slots = shared.slots(i & 1);
    const RowAhead<T> now = row_ahead;
    const T f[2] = {ahead[0], ahead[1]};
    const T child[2] = {ahead[0] + model[0], ahead[1] + model[1]};
    if (i + 1 < rows) {
      fetch(row + 2);
      row_ahead.fetch(s, frame, row + 1);
    }
    if (part.needs(column, reach) || part.needs(column + 1, reach)) {
      const int middle = tid + half_width / 2;
      const bool swap = half_width % 2;
      Gathered<T> g[2] = {};
      g[0].above = swap ? window.odd(middle).value : window.even(middle).value;
      g[1].above = swap ? window.even(middle + 1).value : window.odd(middle).value;
      T value[2];
      if (plain) {
        // One branch for the whole block.
        if (now.scale * now.largest <= small_exponent)
          each_edge_down(window, slots, half_width, [&](int j, const auto& node, const auto& slot) {
            add_plain<Small>(g[j], child[j], node, slot);
          });
        else
          each_edge_down(window, slots, half_width, [&](int j, const auto& node, const auto& slot) {
            add_plain<Any>(g[j], child[j], node, slot);
          });
        for (int j = 0; j < 2; ++j) value[j] = min(max(g[j].above + g[j].sum, T(0)), T(1));
      } else {
        for (int j = 0; j < 2; ++j) g[j].above = max(g[j].above, T(0));
        each_edge_down(window, slots, half_width, [&](int j, const auto& node, const auto& slot) {
          add_general(g[j], child[j], node, slot, law, now.scale);
        });
        for (int j = 0; j < 2; ++j) {
          value[j] = g[j].beam > 0 ? min(max(g[j].above + g[j].sum / g[j].beam, T(0)), T(1)) : T(0);
          if (column + j >= part.to) continue;
          if (s.is_source(frame, row + 1, column + j)) value[j] = 1;
          if (!s.is_valid(frame, row + 1, column + j)) value[j] = -1;
        }
      }
      for (int j = 0; j < 2; ++j)
        if (column + j < part.to)
          shared.window(~i & 1).put_mirrored(
              column + j, part.from, half_width, s.width,
              finish(row + 1, column + j, f[j], value[j], i + 1 == rows));
    }
    if (i + 1 < rows)
      shared.put_slots(~i & 1, s, frame, row + 1, row_ahead.scale, law.floor, row_ahead.inverse,
                       beam);
    __syncthreads();
  }
}

// Calls add(column of the pair, node, slot) for the edges that lead down from two neighbouring
// columns.
template <class T, class Add>
__device__ __forceinline__ void each_edge_up(const Window<T>& w, const Slot<T>* slots,
                                             int half_width, int column, int width, Add&& add) {
  const int first = threadIdx.x, last = 2 * half_width;
#pragma unroll 2
  for (int i = 0; i <= half_width; ++i) {
    const int v = column - half_width + 2 * i;
    const bool even_back = backwards(v, width), odd_back = backwards(v + 1, width);
    const int even_slot = even_back ? 2 * i : last - 2 * i;
    const int odd_slot = odd_back ? 2 * i + 1 : last - 2 * i - 1;
    const Node<T> even = w.even(first + i), odd = w.odd(first + i);
    add(0, even, slots[even_slot]);
    add(1, even, slots[even_slot + (even_back ? -1 : 1)]);
    add(0, odd, slots[odd_slot]);
    add(1, odd, slots[odd_slot + (odd_back ? -1 : 1)]);
  }
}

// From row first_row, whose `above` is in place, to the `rows` rows over it.
template <class T, bool plain>
__global__ void __launch_bounds__(strip_threads, 1)
    sweep_up_kernel(DagScene<T> s, int own, int first_row, int rows, Plane c_map, Plane d_map,
                    T* above) {
  USCONF_DYNAMIC_SHARED(unsigned char, memory);
  const int frame = blockIdx.y, half_width = s.half_width, tid = threadIdx.x;
  const Part part(own, rows * half_width, s.width);
  const StripMemory<T> shared(memory, part.to - part.from, half_width);
  const int column = part.from + 2 * tid;
  const EdgeRules<T> law = edges_of(s, frame);
  const T beam = tid < s.slots() ? s.beam[tid] : T(0);
  const long long frame_at = frame * s.pixels();
  // A child as its edges see it.
  const auto node_of = [&](int row, int c, T f, T value) {
    if (plain) return Node<T>{f, value};
    return Node<T>{f + s.model_of(frame, row - 1, c), value * s.share_of(frame, row, c)};
  };

  T ahead[2] = {}, d_ahead[2] = {};  // f and d_map of the row above
  const auto fetch = [&](int row) {
    for (int j = 0; j < 2; ++j) {
      if (column + j >= part.to) continue;
      ahead[j] = s.pixel(frame, row, column + j);
      d_ahead[j] = d_map.get<T>(frame_at + s.at(row, column + j));
    }
  };
  RowAhead<T> row_ahead{};
  for (int j = 0; j < 2; ++j) {
    const int c = column + j;
    if (c >= part.to) continue;
    const Node<T> node =
        node_of(first_row, c, s.pixel(frame, first_row, c), above[frame_at + s.at(first_row, c)]);
    shared.window(0).put_mirrored(c, part.from, half_width, s.width, node);
  }
  fetch(first_row - 1);
  row_ahead.fetch(s, frame, first_row - 1);
  shared.put_slots(0, s, frame, first_row - 1, row_ahead.scale, law.floor, row_ahead.inverse, beam);
  __syncthreads();

  for (int i = 0; i < rows; ++i) {
    const int row = first_row - 1 - i, reach = (rows - 1 - i) * half_width;
    const Window<T> window = shared.window(i & 1);
    const Slot<T>* slots = shared.slots(i & 1);
    const RowAhead<T> now = row_ahead;
    const T f[2] = {ahead[0], ahead[1]}, d[2] = {d_ahead[0], d_ahead[1]};
    if (i + 1 < rows) {
      fetch(row - 1);
      row_ahead.fetch(s, frame, row - 1);
    }
    if (part.needs(column, reach) || part.needs(column + 1, reach)) {
      T sum[2] = {};
      const auto add = [&](auto&& loss_at) {
        each_edge_up(window, slots, half_width, column, s.width,
                     [&](int j, const Node<T>& child, const Slot<T>& slot) {
                       const T loss = loss_at(f[j], child.f, slot);
                       sum[j] += slot.beam * (child.value - loss * child.value);
                     });
      };
      if (!plain)
        add([&](T parent, T child, const Slot<T>& slot) {
          if (slot.beam == 0) return T(0);
          const T rel = relative(law, parent - child, child, slot.inverse);
          return loss_of(exponent(rel, law.power, now.scale));
        });
      else if (now.scale * now.largest <= small_exponent)
        add([](T parent, T child, const Slot<T>& slot) {
          return Small::loss(absolute(parent - child) * slot.rate + slot.offset);
        });
      else
        add([](T parent, T child, const Slot<T>& slot) {
          return Any::loss(absolute(parent - child) * slot.rate + slot.offset);
        });
      for (int j = 0; j < 2; ++j) {
        const int c = column + j;
        if (c >= part.to) continue;
        const long long at = frame_at + s.at(row, c);
        T value = sum[j] + d[j];
        if (plain) {
          if (row == 0) value = 0;
        } else {
          value = sum[j] + d[j] * static_cast<T>(s.output_scale(frame, row, c));
          if (!passes_up(s, frame, row, c, c_map)) value = 0;
        }
        if (part.owns(c)) above[at] = value;
        if (row > 0)
          shared.window(~i & 1).put_mirrored(c, part.from, half_width, s.width,
                                             node_of(row, c, f[j], value));
      }
    }
    if (i + 1 < rows)
      shared.put_slots(~i & 1, s, frame, row - 1, row_ahead.scale, law.floor, row_ahead.inverse,
                       beam);
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    last_row_kernel(DagScene<T> s, Plane c_map, Plane d_map, T* __restrict__ above) {
  const int frame = blockIdx.y, row = s.height - 1;
  for (long long i = own_item(); i < s.width; i += item_stride()) {
    const int c = static_cast<int>(i);
    const long long at = frame * s.pixels() + s.at(row, c);
    above[at] = passes_up(s, frame, row, c, c_map)
                    ? d_map.get<T>(at) * static_cast<T>(s.output_scale(frame, row, c))
                    : T(0);
  }
}

struct Shape {
  Strips strips;
  dim3 grid;
  int threads;
  std::size_t bytes;
};

template <class T>
Shape shape_of(const DagScene<T>& s) {
  Shape shape{};
  shape.strips =
      choose_strips(s.frames, s.height, s.width, s.half_width, sizeof(T) == sizeof(double));
  const int columns = strip_extent(shape.strips, s.half_width, s.width);
  shape.grid = dim3((s.width + shape.strips.own - 1) / shape.strips.own, s.frames);
  shape.threads = std::max((columns + 1) / 2, least_strip_threads);
  shape.threads = (shape.threads + warp - 1) / warp * warp;
  shape.bytes = strip_bytes<T>(columns, s.half_width);
  return shape;
}

}  // namespace

template <class T>
void sweep_down(const DagScene<T>& s, Plane map, bool raw, T* rows, cudaStream_t stream) {
  const Shape shape = shape_of(s);
  T* before = rows;
  T* after = rows + static_cast<long long>(s.frames) * s.width;
  int row = 0;
  do {
    const int count = std::min(shape.strips.rows, s.height - 1 - row);
    if (s.plain())
      USCONF_LAUNCH((sweep_down_kernel<T, true>), shape.grid, shape.threads, shape.bytes, stream, s,
                    shape.strips.own, row, count, before, after, map, raw);
    else
      USCONF_LAUNCH((sweep_down_kernel<T, false>), shape.grid, shape.threads, shape.bytes, stream,
                    s, shape.strips.own, row, count, before, after, map, raw);
    std::swap(before, after);
    row += count;
  } while (row < s.height - 1);
  check_launch("the sweep down");
}

template <class T>
void sweep_up(const DagScene<T>& s, Plane c, Plane d_map, T* above, cudaStream_t stream) {
  const Shape shape = shape_of(s);
  USCONF_LAUNCH(last_row_kernel<T>, dim3(blocks_over_items(s.width, 256), s.frames), 256, 0, stream,
                s, c, d_map, above);
  for (int row = s.height - 1; row > 0;) {
    const int count = std::min(shape.strips.rows, row);
    if (s.plain())
      USCONF_LAUNCH((sweep_up_kernel<T, true>), shape.grid, shape.threads, shape.bytes, stream, s,
                    shape.strips.own, row, count, c, d_map, above);
    else
      USCONF_LAUNCH((sweep_up_kernel<T, false>), shape.grid, shape.threads, shape.bytes, stream, s,
                    shape.strips.own, row, count, c, d_map, above);
    row -= count;
  }
  check_launch("the sweep up");
}

template void sweep_down<float>(const DagScene<float>&, Plane, bool, float*, cudaStream_t);
template void sweep_down<double>(const DagScene<double>&, Plane, bool, double*, cudaStream_t);
template void sweep_up<float>(const DagScene<float>&, Plane, Plane, float*, cudaStream_t);
template void sweep_up<double>(const DagScene<double>&, Plane, Plane, double*, cudaStream_t);

}  // namespace usconf::cuda
