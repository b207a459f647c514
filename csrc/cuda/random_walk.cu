// The random walk on the device: lays out the workspace, puts the stages in order. Frames go
// through in batches whose workspace stays bounded; nothing waits for the host.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "random_walk_stages.h"
#include "scan_conversion.h"

namespace usconf::cuda {
namespace {

// Refinement steps. Float: two bring any map tried to 7e-8 (spec), below a float's own rounding
// of 1. Double: each step gains at least two digits even at beta = 400; four leave 1e-10 or less.
constexpr int float_steps = 2, double_steps = 4;
// The adjoint needs its relative error at 1e-6 only: one step leaves 2e-8 (spec).
constexpr int float_adjoint_steps = 1;
// Frames at once: enough to fill the largest device many times over, at a bounded workspace.
constexpr std::size_t batch_bytes = std::size_t(2) << 30;
constexpr std::size_t factor_alignment = 64;

std::size_t scalar_bytes(Scalar s) {
  constexpr std::size_t bytes[] = {1, 2, 2, 2, 4, 8};
  return bytes[static_cast<int>(s)];
}

bool has_unknowns(const RandomWalkProblem& p) { return p.bottom > p.top && p.width > 0; }

Scene scene_of(const RandomWalkProblem& p, int first, int frames) {
  Scene s{};
  const long long pixels = static_cast<long long>(p.height) * p.width;
  s.image = static_cast<const char*>(p.image) + first * pixels * scalar_bytes(p.scalar);
  s.scalar = p.scalar;
  s.frames = frames;
  s.height = p.height;
  s.width = p.width;
  s.label_stride = p.labels_shared ? 0 : pixels;
  s.labels = p.labels ? p.labels + first * s.label_stride : nullptr;
  s.top = p.top;
  s.rows = has_unknowns(p) ? p.bottom - p.top : 0;
  s.alpha = p.alpha;
  s.beta = p.beta;
  s.gamma = p.gamma;
  s.variant = p.variant;
  s.normalise = p.normalise;
  return s;
}

std::size_t factor_floats(const Dissection& tree) {
  constexpr std::size_t unit = factor_alignment / sizeof(float);
  return (static_cast<std::size_t>(tree.factor) + unit - 1) / unit * unit;
}

enum class Purpose { map, gradient, edges };

// Everything a batch needs. Made without a base it measures.
struct Arrays {
  double* attenuated;
  FrameFacts* facts;
  unsigned long long* extremes;
  Weights<float> weights;
  Weights<double> exact;
  Storage storage;
  float *residual, *step;
  double *x, *right;
  GradientWork gradient;

  // own_factor: the factor lies in the workspace, not with the caller. solve: false when there are
  // no unknowns.
  void lay_out(Layout& l, const Scene& s, const Dissection* tree, Purpose purpose, bool is_double,
               bool own_factor) {
    const std::size_t frames = s.frames, pixels = s.pixels() * frames;
    const std::size_t unknowns = s.unknowns() * frames;
    attenuated = l.take<double>(pixels);
    facts = l.take<FrameFacts>(frames);
    extremes = l.take<unsigned long long>(4 * frames);
    if (purpose == Purpose::gradient) {
      gradient.partial = l.take<double>(gradient_partials(s));
      gradient.chain = l.take<double>(chain_numbers * frames);
      gradient.d_intensity = l.take<double>(pixels);
    }
    if (purpose == Purpose::edges || !tree) return;
    weights = {l.take<float>(Weights<float>::planes * unknowns), s.rows, s.width};
    if (is_double) exact = {l.take<double>(Weights<double>::planes * unknowns), s.rows, s.width};
    residual = l.take<float>(unknowns);
    step = l.take<float>(unknowns);
    x = l.take<double>(unknowns);
    if (purpose == Purpose::gradient) right = l.take<double>(unknowns);
    storage.factor_stride = static_cast<long long>(factor_floats(*tree));
    storage.update_stride = tree->update;
    storage.vector_stride = tree->vector;
    if (own_factor) storage.factor = l.take<float>(storage.factor_stride * frames);
    storage.update = l.take<float>(storage.update_stride * frames);
    storage.vector = l.take<float>(storage.vector_stride * frames);
  }
};

std::size_t batch_size(const RandomWalkProblem& p, const Dissection* tree, Purpose purpose,
                       bool is_double, int frames) {
  Arrays a{};
  Layout l;
  a.lay_out(l, scene_of(p, 0, frames), tree, purpose, is_double, true);
  return l.bytes();
}

int batch_frames(const RandomWalkProblem& p, const Dissection* tree, Purpose purpose,
                 bool is_double) {
  const std::size_t one = batch_size(p, tree, purpose, is_double, 1);
  const std::size_t fit = std::max<std::size_t>(batch_bytes / std::max<std::size_t>(one, 1), 1);
  return static_cast<int>(std::min<std::size_t>({fit, static_cast<std::size_t>(p.frames), 65535}));
}

void refuse(const RandomWalkProblem& p, const RandomWalkOptions& o) {
  if (o.solver == Solver::iterative)
    throw std::invalid_argument(
        "solver must be \"direct\" on a CUDA device, got \"iterative\"; pass solver=\"direct\", or "
        "move the image to the CPU");
  if (p.height > 65535)
    throw std::invalid_argument("image must have at most 65535 rows on a CUDA device, got " +
                                std::to_string(p.height) + "; move it to the CPU");
}

// One batch of frames on its way through the stages.
class Batch {
 public:
  Batch(const RandomWalkProblem& p, const DevicePlan* plan, Purpose purpose, bool is_double,
        int first, int frames, float* factor, cudaStream_t stream)
      : scene(scene_of(p, first, frames)),
        plan_(plan),
        is_double_(is_double),
        stream_(stream),
        workspace_(measure(purpose, factor == nullptr), stream) {
    Layout l(workspace_.data());
    arrays.lay_out(l, scene, tree(), purpose, is_double, factor == nullptr);
    if (factor) arrays.storage.factor = factor + first * arrays.storage.factor_stride;
    if (plan) arrays.storage.nodes = plan->nodes();
    attenuate(scene, arrays.attenuated, arrays.facts, arrays.extremes, stream);
  }

  const Scene scene;
  Arrays arrays{};

  void assemble() {
    weigh(scene, arrays.attenuated, arrays.facts, arrays.weights, exact(), stream_);
  }
  void eliminate() {
    eliminate_tiles(*tree(), arrays.storage, arrays.weights, scene.frames, stream_);
    eliminate_fronts(*tree(), arrays.storage, arrays.weights, scene.frames, stream_);
  }
  // right null: the map's own system.
  void solve(const double* right, int steps) {
    const long long count = scene.unknowns() * scene.frames;
    if (right) {
      check(cudaMemsetAsync(arrays.x, 0, count * sizeof(double), stream_),
            "clearing the workspace");
      ++steps;
    } else {
      backward(true);
      advance(arrays.x, arrays.step, true, count, stream_);
    }
    for (int i = 0; i < steps; ++i) {
      flux_residual(arrays.weights, exact(), arrays.x, right, arrays.residual, scene.frames,
                    stream_);
      forward_tiles(*tree(), arrays.storage, arrays.residual, scene.frames, stream_);
      forward_fronts(*tree(), arrays.storage, arrays.residual, scene.frames, stream_);
      backward(false);
      advance(arrays.x, arrays.step, false, count, stream_);
    }
  }

 private:
  const Dissection* tree() const { return plan_ ? &plan_->tree : nullptr; }
  const Weights<double>* exact() const { return is_double_ ? &arrays.exact : nullptr; }
  std::size_t measure(Purpose purpose, bool own_factor) const {
    Arrays a{};
    Layout l;
    a.lay_out(l, scene, tree(), purpose, is_double_, own_factor);
    return l.bytes();
  }
  void backward(bool from_source) {
    backward_fronts(*tree(), arrays.storage, arrays.step, from_source, scene.frames, stream_);
    backward_tiles(*tree(), arrays.storage, arrays.step, from_source, scene.frames, stream_);
  }

  const DevicePlan* plan_;
  bool is_double_;
  cudaStream_t stream_;
  Workspace workspace_;
};

std::shared_ptr<const DevicePlan> plan_of(const RandomWalkProblem& p) {
  return has_unknowns(p) ? plan_for(p.bottom - p.top, p.width) : nullptr;
}

}  // namespace

std::size_t random_walk_factor_bytes(const RandomWalkProblem& p) {
  if (!has_unknowns(p)) return 0;
  return factor_floats(*dissection_for(p.bottom - p.top, p.width)) * sizeof(float);
}

std::size_t random_walk_memory(const RandomWalkProblem& p, const RandomWalkOptions& o) {
  refuse(p, o);
  if (p.frames == 0) return 0;
  const auto tree = has_unknowns(p) ? dissection_for(p.bottom - p.top, p.width) : nullptr;
  const int frames = batch_frames(p, tree.get(), Purpose::map, o.double_map);
  return batch_size(p, tree.get(), Purpose::map, o.double_map, frames) +
         (tree ? tree->nodes.size() * sizeof(Node) : 0);
}

RandomWalkReport random_walk(const RandomWalkProblem& p, const RandomWalkOptions& o, void* map,
                             void* factor, void* stream) {
  refuse(p, o);
  const int steps = o.double_map ? double_steps : float_steps;
  const auto plan = plan_of(p);
  if (p.frames == 0) return {0, 0.0};
  const auto queue = static_cast<cudaStream_t>(stream);
  const int most = batch_frames(p, plan ? &plan->tree : nullptr, Purpose::map, o.double_map);
  const std::size_t map_bytes = static_cast<std::size_t>(p.height) * p.width *
                                (o.double_map ? sizeof(double) : sizeof(float));
  for (int first = 0; first < p.frames; first += most) {
    if (o.checkpoint) o.checkpoint();
    Batch batch(p, plan.get(), Purpose::map, o.double_map, first, std::min(most, p.frames - first),
                static_cast<float*>(factor), queue);
    if (plan) {
      batch.assemble();
      batch.eliminate();
      batch.solve(nullptr, steps);
    }
    write_map(batch.scene, batch.arrays.facts, batch.arrays.x,
              static_cast<char*>(map) + first * map_bytes, o.double_map, queue);
  }
  if (!plan) return {0, 0.0};
  // The last correction stays on the device: reading it would make every call wait.
  return {steps, std::numeric_limits<double>::quiet_NaN()};
}

void random_walk_backward(const RandomWalkProblem& p, const RandomWalkOptions& o, const void* map,
                          const void* factor, const void* d_map, void* d_image,
                          double* d_parameters, void* stream) {
  refuse(p, o);
  const auto queue = static_cast<cudaStream_t>(stream);
  check(cudaMemsetAsync(d_parameters, 0, 3 * sizeof(double), queue), "clearing the gradient");
  const std::size_t number = o.double_map ? sizeof(double) : sizeof(float);
  const std::size_t frame_bytes = static_cast<std::size_t>(p.height) * p.width * number;
  const auto plan = plan_of(p);
  if (!plan) {  // nothing depends on the image
    if (d_image)
      check(cudaMemsetAsync(d_image, 0, p.frames * frame_bytes, queue), "clearing d_image");
    return;
  }
  const int most = batch_frames(p, &plan->tree, Purpose::gradient, o.double_map);
  for (int first = 0; first < p.frames; first += most) {
    if (o.checkpoint) o.checkpoint();
    const std::size_t at = first * frame_bytes;
    Batch batch(p, plan.get(), Purpose::gradient, o.double_map, first,
                std::min(most, p.frames - first),
                const_cast<float*>(static_cast<const float*>(factor)), queue);
    batch.assemble();
    if (!factor) batch.eliminate();
    gather_upstream(batch.scene, static_cast<const char*>(d_map) + at, o.double_map,
                    batch.arrays.right, queue);
    batch.solve(batch.arrays.right, o.double_map ? double_steps : float_adjoint_steps);
    GradientWork& work = batch.arrays.gradient;
    work.attenuated = batch.arrays.attenuated;
    work.facts = batch.arrays.facts;
    work.adjoint = batch.arrays.x;
    work.map = static_cast<const char*>(map) + at;
    work.is_double = o.double_map;
    differentiate(batch.scene, work, d_image ? static_cast<char*>(d_image) + at : nullptr,
                  d_parameters, queue);
  }
}

void random_walk_edges(const RandomWalkProblem& p, const RandomWalkOptions& o, double* edges,
                       void* stream) {
  refuse(p, {Solver::direct, o.double_map, o.threads, o.checkpoint});
  if (p.frames == 0) return;
  const auto queue = static_cast<cudaStream_t>(stream);
  const int most = batch_frames(p, nullptr, Purpose::edges, true);
  for (int first = 0; first < p.frames; first += most) {
    if (o.checkpoint) o.checkpoint();
    Batch batch(p, nullptr, Purpose::edges, true, first, std::min(most, p.frames - first), nullptr,
                queue);
    weigh_edges(batch.scene, batch.arrays.attenuated, batch.arrays.facts,
                edges + 4 * first * batch.scene.pixels(), queue);
  }
}

void clear_cache() {
  clear_plans();
  clear_transposed_tables();
  trim_pools();
}

}  // namespace usconf::cuda
