// The transposed operators of scan conversion: for every input pixel the sum over the outputs that
// it contributed to. A table holds those outputs and the forward's own weights, so that the
// transposition is exact by construction; finding the outputs anew for each pixel instead would
// mean a bound on their number that holds next to the apex, at borders that leave pixels out, and
// for coarse grids. Each sum runs in ascending order of the outputs: the same bits in every run.
//
// The table is made on the device once per geometry and kept: 8 bytes (12 for doubles) for each of
// the up to 4 taps of an output. A frame then moves that table, which all frames of a layer share
// four at a time, and floor bytes for the rest.
#include <algorithm>
#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "scan_conversion.h"

namespace usconf::cuda {
namespace {

constexpr int threads = 256, scan_threads = 1024;
constexpr int frames_at_once = 4;
// Rows longer than this are summed by a whole warp: at the apex of a phased array all lines meet.
constexpr int long_row = 64;
constexpr std::size_t store_bytes = std::size_t(256) << 20;  // for all devices together

// Entries [start[i], start[i + 1]) of input pixel i, outputs ascending.
template <class Weight>
struct Table {
  const int* start;
  const int* output;
  const Weight* weight;
};

// The output pixel of a thread; -1 beyond the grid.
__device__ __forceinline__ int output_here(const Sampling& s, int& row, int& column) {
  row = blockIdx.y * block_side + threadIdx.y;
  column = blockIdx.x * block_side + threadIdx.x;
  return row < s.rows() && column < s.columns() ? row * s.columns() + column : -1;
}

template <class Weight, Direction direction>
__global__ void count_kernel(Sampling s, int* count) {
  int row, column;
  if (output_here(s, row, column) < 0) return;
  const Taps<Weight> taps = taps_of<Weight, direction>(s, row, column);
  for (int k = 0; k < 4; ++k)
    if (taps.weight[k] != 0) atomicAdd(&count[taps.pixel[k]], 1);
}

// Counts become starts, in place; start[n] becomes the total. One block: 1024 pixels take about a
// microsecond, once per geometry.
__global__ void sum_kernel(int* start, int n) {
  __shared__ int warp_total[scan_threads / warp];
  const int lane = threadIdx.x % warp, own = threadIdx.x / warp;
  int before = 0;
  for (int base = 0; base < n; base += scan_threads) {
    const int i = base + static_cast<int>(threadIdx.x);
    const int count = i < n ? start[i] : 0;
    int sum = count;
    for (int step = 1; step < warp; step *= 2) {
      const int lower = __shfl_up_sync(all_lanes, sum, step);
      if (lane >= step) sum += lower;
    }
    if (lane == warp - 1) warp_total[own] = sum;
    __syncthreads();
    int total = 0, lower_warps = 0;
    for (int w = 0; w < scan_threads / warp; ++w) {
      lower_warps += w < own ? warp_total[w] : 0;
      total += warp_total[w];
    }
    if (i < n) start[i] = before + lower_warps + sum - count;
    before += total;
    __syncthreads();
  }
  if (threadIdx.x == 0) start[n] = before;
}

// Outputs into the rows of their inputs, in whatever order the threads arrive.
template <class Weight, Direction direction>
__global__ void place_kernel(Sampling s, const int* start, int* cursor, int* unordered) {
  int row, column;
  const int at = output_here(s, row, column);
  if (at < 0) return;
  const Taps<Weight> taps = taps_of<Weight, direction>(s, row, column);
  for (int k = 0; k < 4; ++k) {
    if (taps.weight[k] == 0) continue;
    const int pixel = taps.pixel[k];
    unordered[start[pixel] + atomicAdd(&cursor[pixel], 1)] = at;
  }
}

// An entry's place is the number of smaller ones in its row: no output is twice in a row.
template <class Weight, Direction direction>
__global__ void order_kernel(Sampling s, const int* start, const int* unordered, int* output,
                             Weight* weight) {
  int row, column;
  const int at = output_here(s, row, column);
  if (at < 0) return;
  const Taps<Weight> taps = taps_of<Weight, direction>(s, row, column);
  for (int k = 0; k < 4; ++k) {
    if (taps.weight[k] == 0) continue;
    const int begin = start[taps.pixel[k]], end = start[taps.pixel[k] + 1];
    int place = begin;
    for (int i = begin; i < end; ++i) place += unordered[i] < at;
    output[place] = at;
    weight[place] = taps.weight[k];
  }
}

__device__ __forceinline__ int warp_largest(int v) {
  for (int step = warp / 2; step > 0; step /= 2) v = max(v, __shfl_xor_sync(all_lanes, v, step));
  return v;
}

// Adds every `stride`-th entry of [begin, end) for up to frames_at_once frames.
template <class T, class Number>
__device__ __forceinline__ void add_entries(const Table<Number>& table, int begin, int end,
                                            int stride, const T* __restrict__ source,
                                            long long outputs, int frames, Number* sum) {
#pragma unroll 2
  for (int i = begin; i < end; i += stride) {
    const Number weight = table.weight[i];
    const T* from = source + table.output[i];
#pragma unroll
    for (int k = 0; k < frames_at_once; ++k)
      if (k < frames) sum[k] += weight * number(from[k * outputs]);
  }
}

template <class T>
__global__ void __launch_bounds__(threads)
    gather_kernel(Table<typename Sum<T>::type> table, const T* __restrict__ source,
                  T* __restrict__ target, int inputs, long long outputs, int frames,
                  int frames_each) {
  using Number = typename Sum<T>::type;
  // Threads beyond the last pixel stay: their warp's shuffles need them.
  const int pixel = blockIdx.x * threads + threadIdx.x, own = threadIdx.x % warp;
  const int begin = pixel < inputs ? table.start[pixel] : 0;
  const int end = pixel < inputs ? table.start[pixel + 1] : 0;
  const bool some_long = warp_largest(end - begin) > long_row;
  const int first = blockIdx.y * frames_each, last = min(first + frames_each, frames);
  for (int frame = first; frame < last; frame += frames_at_once) {
    const T* from = source + frame * outputs;
    const int here = min(frames_at_once, last - frame);
    Number sum[frames_at_once] = {};
    if (end - begin <= long_row) add_entries(table, begin, end, 1, from, outputs, here, sum);
    for (int lane = 0; some_long && lane < warp; ++lane) {
      const int row = __shfl_sync(all_lanes, begin, lane);
      const int row_end = __shfl_sync(all_lanes, end, lane);
      if (row_end - row <= long_row) continue;
      Number part[frames_at_once] = {};
      add_entries(table, row + own, row_end, warp, from, outputs, here, part);
#pragma unroll
      for (int k = 0; k < frames_at_once; ++k) {
        part[k] = warp_sum(part[k]);
        if (lane == own) sum[k] = part[k];
      }
    }
    if (pixel >= inputs) continue;
#pragma unroll
    for (int k = 0; k < frames_at_once; ++k)
      if (k < here)
        target[(frame + k) * static_cast<long long>(inputs) + pixel] = as_pixel<T>(sum[k]);
  }
}

struct Key {
  int device;
  Direction direction;
  bool nearest, wide;  // wide: weights in double
  BeamKind kind;
  std::array<double, 10> values;
  int samples, lines, height, width;
  bool operator==(const Key&) const = default;
};

// Device memory of a table, for as long as somebody uses it.
class StoredTable {
 public:
  StoredTable(const Sampling& s, const Key& key, cudaStream_t stream) : key(key) {
    key.wide ? build<double>(s, stream) : build<float>(s, stream);
  }
  ~StoredTable() { release(); }
  StoredTable(const StoredTable&) = delete;
  StoredTable& operator=(const StoredTable&) = delete;

  std::size_t bytes() const { return bytes_; }
  template <class Weight>
  Table<Weight> table() const {
    return {start_, output_, static_cast<const Weight*>(weight_)};
  }

  const Key key;

 private:
  template <class Weight>
  void build(const Sampling& s, cudaStream_t stream) {
    if (s.to_beam())
      build<Weight, Direction::to_beam>(s, stream);
    else
      build<Weight, Direction::to_scan>(s, stream);
  }
  template <class Weight, Direction direction>
  void build(const Sampling& s, cudaStream_t stream);
  void release();

  std::size_t bytes_ = 0;
  int* start_ = nullptr;
  int* output_ = nullptr;
  void* weight_ = nullptr;
};

constexpr const char* storing =
    "storing the table of a new geometry (to capture a graph, call once with it before)";

template <class Weight, Direction direction>
void StoredTable::build(const Sampling& s, cudaStream_t stream) try {
  const std::size_t inputs = static_cast<std::size_t>(s.inputs());
  const dim3 grid = blocks_over(s, 1), block = block_shape();
  bytes_ = (inputs + 1) * sizeof(int);
  check(cudaMalloc(&start_, bytes_), storing);
  check(cudaMemsetAsync(start_, 0, bytes_, stream), storing);
  USCONF_LAUNCH((count_kernel<Weight, direction>), grid, block, 0, stream, s, start_);
  USCONF_LAUNCH(sum_kernel, 1, scan_threads, 0, stream, start_, static_cast<int>(inputs));
  int entries = 0;
  check(cudaMemcpyAsync(&entries, start_ + inputs, sizeof(int), cudaMemcpyDeviceToHost, stream),
        storing);
  check(cudaStreamSynchronize(stream), storing);
  if (entries > 0) {
    check(cudaMalloc(&output_, entries * sizeof(int)), storing);
    check(cudaMalloc(&weight_, entries * sizeof(Weight)), storing);
    bytes_ += entries * (sizeof(int) + sizeof(Weight));
    const Workspace workspace((inputs + entries) * sizeof(int), stream);
    int* const cursor = static_cast<int*>(workspace.data());
    int* const unordered = cursor + inputs;
    check(cudaMemsetAsync(cursor, 0, inputs * sizeof(int), stream), storing);
    USCONF_LAUNCH((place_kernel<Weight, direction>), grid, block, 0, stream, s, start_, cursor,
                  unordered);
    USCONF_LAUNCH((order_kernel<Weight, direction>), grid, block, 0, stream, s, start_, unordered,
                  output_, static_cast<Weight*>(weight_));
    check_launch(storing);
  }
  // The next one to use the table may come on another stream.
  check(cudaStreamSynchronize(stream), storing);
} catch (...) {
  release();
  throw;
}

// cudaFree waits for kernels that still read.
void StoredTable::release() {
  int former = -1;
  if (cudaGetDevice(&former) != cudaSuccess || cudaSetDevice(key.device) != cudaSuccess) return;
  static_cast<void>(cudaFree(start_));
  static_cast<void>(cudaFree(output_));
  static_cast<void>(cudaFree(weight_));
  static_cast<void>(cudaSetDevice(former));
}

using Shared = std::shared_ptr<const StoredTable>;
struct Store {
  std::mutex busy;
  std::list<Shared> recent;  // used last first
};
Store& store() {
  static Store* const s = new Store;  // never destroyed: the driver may be gone before us at exit
  return *s;
}

// The lock is kept while a table is built: a second thread would only build the same one.
Shared table_for(const Sampling& s, const ScanConversion& c, cudaStream_t stream) {
  Key key{};
  key.device = current_device();
  key.direction = c.direction, key.nearest = c.nearest, key.wide = c.scalar == Scalar::f64;
  key.samples = c.samples, key.lines = c.lines, key.height = c.height, key.width = c.width;
  key.kind = c.geometry.kind;
  std::copy_n(c.geometry.values, key.values.size(), key.values.begin());
  Store& all = store();
  const std::lock_guard<std::mutex> lock(all.busy);
  const auto at = std::find_if(all.recent.begin(), all.recent.end(),
                               [&](const Shared& t) { return t->key == key; });
  if (at != all.recent.end()) {
    all.recent.splice(all.recent.begin(), all.recent, at);
    return all.recent.front();
  }
  const auto fresh = std::make_shared<const StoredTable>(s, key, stream);
  if (fresh->bytes() > store_bytes) return fresh;
  all.recent.push_front(fresh);
  std::size_t held = 0;
  all.recent.remove_if([&](const Shared& t) { return (held += t->bytes()) > store_bytes; });
  return fresh;
}

template <class T>
void gather(const StoredTable& stored, const Sampling& s, const ScanConversion& c,
            cudaStream_t stream) {
  using Number = typename Sum<T>::type;
  const int inputs = static_cast<int>(s.inputs());
  const unsigned blocks = static_cast<unsigned>((inputs + threads - 1) / threads);
  const Layers layers = layers_for(blocks, c.frames);
  const dim3 grid(blocks, static_cast<unsigned>(layers.count));
  USCONF_LAUNCH(gather_kernel<T>, grid, threads, 0, stream, stored.table<Number>(),
                static_cast<const T*>(c.source), static_cast<T*>(c.target), inputs, s.outputs(),
                c.frames, layers.frames_each);
  check_launch("transposed scan conversion");
}

}  // namespace

void transposed_scan_conversion(const Sampling& s, const ScanConversion& c, cudaStream_t stream) {
  if (c.scalar != Scalar::f16 && c.scalar != Scalar::f32 && c.scalar != Scalar::f64)
    throw std::invalid_argument(
        "scalar must be float16, float32 or float64 for the transposed operator, got an integer "
        "type; convert the gradient to float32");
  const Shared stored = table_for(s, c, stream);
  if (c.scalar == Scalar::f16) return gather<Half>(*stored, s, c, stream);
  if (c.scalar == Scalar::f32) return gather<float>(*stored, s, c, stream);
  gather<double>(*stored, s, c, stream);
}

void clear_transposed_tables() {
  Store& all = store();
  const std::lock_guard<std::mutex> lock(all.busy);
  all.recent.clear();
}

}  // namespace usconf::cuda
