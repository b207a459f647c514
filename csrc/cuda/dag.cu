// DAG maps on the device: lays out the workspace, puts the stages in order. Frames go through in
// batches whose workspace stays bounded; nothing waits for the host.
#include <algorithm>

#include "dag.h"

namespace usconf::cuda {
namespace {

// Frames at once: many times what fills a device, at a bounded workspace.
constexpr std::size_t batch_bytes = std::size_t(2) << 30;
// Below this exponent the beam's weights are no normal floats any more, and a mask may leave none
// but those.
constexpr double float_beam_exponent = 80;

bool walks(const DagProblem& p) { return p.variant != 0 || p.half_width > most_half_width; }

// Whether to compute in double. Differences of doubles do not fit into floats.
bool in_double(const DagProblem& p, const DagOptions& o) {
  const double reach = p.half_width;
  return o.double_map || p.scalar == Scalar::f64 || walks(p) ||
         (p.valid && reach * reach / (2 * p.var) > float_beam_exponent);
}

template <class T>
struct Arrays {
  DagScene<T> scene;
  unsigned long long* extremes = nullptr;
  Range* ranges = nullptr;
  T *rows = nullptr, *c = nullptr, *above = nullptr;
  DagGradient<T> gradient{};

  // kept: C has to be swept again for the gradient.
  void lay_out(Layout& l, bool backward, bool kept) {
    DagScene<T>& s = scene;
    const std::size_t frames = s.frames, pixels = s.pixels() * frames;
    const std::size_t steps = (s.height - 1) * frames, slots = s.slots();
    const std::size_t masks = s.valid ? s.valid_stride ? frames : 1 : 0;
    s.law = l.take<FrameLaw>(frames);
    s.f = l.take<T>(pixels);
    s.inverse = l.take<T>(steps * slots);
    s.largest = l.take<T>(steps);
    s.top = l.take<T>(steps);
    s.scale = l.take<T>(s.height);
    s.beam = l.take<T>(slots);
    s.first = l.take<int>(masks * s.width);
    s.first_stride = s.valid_stride ? s.width : 0;
    extremes = l.take<unsigned long long>(2 * frames);
    ranges = l.take<Range>(frames);
    rows = l.take<T>(2 * frames * s.width);
    if (!backward) return;
    s.share = l.take<T>(masks * s.pixels());
    s.slope = l.take<T>(masks * s.pixels());
    c = l.take<T>(kept ? pixels : 0);
    above = l.take<T>(pixels);
    gradient.slot_sums = l.take<double>(steps * slots);
    gradient.row_sums = l.take<double>(steps * dag_row_sums);
    gradient.d_plain = l.take<double>(pixels);
    gradient.chain = l.take<double>(frames * dag_chain);
    gradient.partial = l.take<double>(frames * dag_partials * dag_partial_sums);
  }
};

template <class T>
DagScene<T> scene_of(const DagProblem& p, int first, int frames) {
  DagScene<T> s{};
  s.frames = frames, s.height = p.height, s.width = p.width;
  s.half_width = p.half_width, s.variant = p.variant;
  s.power = p.power, s.var = p.var;
  s.valid_stride = p.valid_shared ? 0 : s.pixels();
  s.valid = p.valid ? p.valid + first * s.valid_stride : nullptr;
  s.reference_stride = p.reference_shared ? 0 : p.height;
  s.reference = p.reference ? p.reference + first * s.reference_stride : nullptr;
  s.model_stride = p.artifact_shared ? 0 : s.pixels();
  s.needle = p.needle ? p.needle + first * s.model_stride : nullptr;
  s.artifact = p.artifact ? p.artifact + first * s.model_stride : nullptr;
  return s;
}

// The map itself is C unless it was divided or covered.
bool map_is_c(const DagProblem& p) { return !p.reference && !p.artifact; }

template <class T>
std::size_t bytes_of(const DagProblem& p, int frames, bool backward) {
  Arrays<T> a{.scene = scene_of<T>(p, 0, frames)};
  Layout l;
  a.lay_out(l, backward, !map_is_c(p));
  return l.bytes();
}

// One batch of frames, prepared.
template <class T>
class Batch {
 public:
  Batch(const DagProblem& p, const DagDecay& decay, int first, int count, bool backward,
        cudaStream_t stream)
      : frames(frames_of(p, first, count)),
        arrays{.scene = scene_of<T>(p, first, count)},
        walks_(walks(p)),
        stream_(stream),
        workspace_(bytes_of<T>(p, count, backward), stream) {
    Layout l(workspace_.data());
    arrays.lay_out(l, backward, !map_is_c(p));
    prepare_dag(arrays.scene, frames, p.normalise, decay, p.alpha, backward, arrays.extremes,
                arrays.ranges, stream);
  }

  void down(Plane map, bool raw) {
    if constexpr (sizeof(T) == sizeof(double)) {
      if (walks_) return walk_down(arrays.scene, map, raw, arrays.rows, stream_);
    }
    sweep_down(arrays.scene, map, raw, arrays.rows, stream_);
  }
  void up(Plane c, Plane d_map) {
    if constexpr (sizeof(T) == sizeof(double)) {
      if (walks_) return walk_up(arrays.scene, c, d_map, arrays.above, stream_);
    }
    sweep_up(arrays.scene, c, d_map, arrays.above, stream_);
  }

  const Frames frames;
  Arrays<T> arrays;

 private:
  bool walks_;
  cudaStream_t stream_;
  Workspace workspace_;
};

Plane at(const void* data, std::size_t numbers, bool is_double) {
  if (!data) return {nullptr, is_double};
  const std::size_t number = is_double ? sizeof(double) : sizeof(float);
  return {const_cast<char*>(static_cast<const char*>(data)) + numbers * number, is_double};
}

template <class T>
int batch_frames(const DagProblem& p, bool backward) {
  const std::size_t one = bytes_of<T>(p, 1, backward);
  return static_cast<int>(std::min<std::size_t>(
      {std::max<std::size_t>(1, batch_bytes / one), static_cast<std::size_t>(p.frames), 65535}));
}

template <class T>
void forward(const DagProblem& p, const DagOptions& o, void* map, cudaStream_t stream) {
  const DagDecay decay = dag_decay(p.xi, p.alpha, p.height);
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  const int most = batch_frames<T>(p, false);
  for (int first = 0; first < p.frames; first += most) {
    Batch<T> batch(p, decay, first, std::min(most, p.frames - first), false, stream);
    batch.down(at(map, first * pixels, o.double_map), false);
  }
}

template <class T>
void backward(const DagProblem& p, const DagOptions& o, const void* map, const void* d_map,
              void* d_image, double* d_parameters, cudaStream_t stream) {
  const DagDecay decay = dag_decay(p.xi, p.alpha, p.height);
  const std::size_t pixels = static_cast<std::size_t>(p.height) * p.width;
  const int most = batch_frames<T>(p, true);
  for (int first = 0; first < p.frames; first += most) {
    Batch<T> batch(p, decay, first, std::min(most, p.frames - first), true, stream);
    Arrays<T>& a = batch.arrays;
    a.gradient.c = map_is_c(p) ? at(map, first * pixels, o.double_map)
                               : Plane{a.c, sizeof(T) == sizeof(double)};
    if (!map_is_c(p)) batch.down(a.gradient.c, true);
    batch.up(a.gradient.c, at(d_map, first * pixels, o.double_map));
    a.gradient.above = a.above;
    a.gradient.decay = decay;
    a.gradient.alpha = p.alpha;
    a.gradient.slope = dag_beam(p.var, p.half_width, p.variant, nullptr).slope;
    differentiate_dag(a.scene, batch.frames, p.normalise, a.gradient,
                      at(d_image, first * pixels, o.double_map), d_parameters, stream);
  }
}

bool empty(const DagProblem& p) { return p.frames == 0 || p.height == 0 || p.width == 0; }

}  // namespace

void dag(const DagProblem& p, const DagOptions& o, void* map, void* stream) {
  if (empty(p)) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  in_double(p, o) ? forward<double>(p, o, map, queue) : forward<float>(p, o, map, queue);
}

void dag_backward(const DagProblem& p, const DagOptions& o, const void* map, const void* d_map,
                  void* d_image, double* d_parameters, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (d_parameters)
    check(cudaMemsetAsync(d_parameters, 0, 4 * sizeof(double), queue), "clearing the gradient");
  if (empty(p)) return;
  in_double(p, o) ? backward<double>(p, o, map, d_map, d_image, d_parameters, queue)
                  : backward<float>(p, o, map, d_map, d_image, d_parameters, queue);
}

}  // namespace usconf::cuda
