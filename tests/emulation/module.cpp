// The emulated CUDA operators as a Python module of their own: the functions and the argument lists
// of usconf._core, with host pointers. Compiled like the .cu files, behind the emulation header.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <vector>

#include "cuda/launch.h"
#include "kernels.h"

namespace py = pybind11;

namespace usconf {
namespace {

template <class T>
T* at(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

struct Call {
  RandomWalkProblem problem;
  RandomWalkOptions options;
  void* stream;
};

// Reads the arguments that all functions begin with: the problem's 14, the options' 5. Device
// numbers are those of _core; the only emulated one is 0.
Call parse(const py::args& a, std::size_t more) {
  if (a.size() != 19 + more) throw py::type_error("wrong number of arguments");
  Call c{};
  RandomWalkProblem& p = c.problem;
  p.image = at<const void>(a[0].cast<std::uintptr_t>());
  p.scalar = static_cast<Scalar>(a[1].cast<int>());
  p.frames = a[2].cast<int>();
  p.height = a[3].cast<int>();
  p.width = a[4].cast<int>();
  p.labels = at<const std::uint8_t>(a[5].cast<std::uintptr_t>());
  p.labels_shared = a[6].cast<bool>();
  p.top = a[7].cast<int>();
  p.bottom = a[8].cast<int>();
  p.alpha = a[9].cast<double>();
  p.beta = a[10].cast<double>();
  p.gamma = a[11].cast<double>();
  p.variant = a[12].cast<int>();
  p.normalise = a[13].cast<bool>();
  c.options.solver = static_cast<Solver>(a[14].cast<int>());
  c.options.double_map = a[15].cast<bool>();
  c.options.threads = a[16].cast<int>();
  const cuda::DeviceGuard device(a[17].cast<int>());
  c.stream = at<void>(a[18].cast<std::uintptr_t>());
  return c;
}

std::uintptr_t extra(const py::args& a, std::size_t i) { return a[19 + i].cast<std::uintptr_t>(); }

py::tuple random_walk(const py::args& a) {
  const Call c = parse(a, 2);
  const auto r = cuda::random_walk(c.problem, c.options, at<void>(extra(a, 0)),
                                   at<void>(extra(a, 1)), c.stream);
  return py::make_tuple(r.steps, r.correction);
}

void random_walk_backward(const py::args& a) {
  const Call c = parse(a, 5);
  cuda::random_walk_backward(c.problem, c.options, at<void>(extra(a, 0)), at<void>(extra(a, 1)),
                             at<void>(extra(a, 2)), at<void>(extra(a, 3)), at<double>(extra(a, 4)),
                             c.stream);
}

void random_walk_edges(const py::args& a) {
  const Call c = parse(a, 1);
  cuda::random_walk_edges(c.problem, c.options, at<double>(extra(a, 0)), c.stream);
}

// The argument list of _core.scan_conversion.
void scan_conversion(int direction, bool nearest, bool transpose, int scalar, int frames, int kind,
                     const std::array<double, 10>& values, int samples, int lines, int height,
                     int width, std::uintptr_t source, std::uintptr_t target, std::uintptr_t mask,
                     int threads, int device, std::uintptr_t stream) {
  ScanConversion c{};
  c.direction = static_cast<Direction>(direction);
  c.nearest = nearest;
  c.transpose = transpose;
  c.scalar = static_cast<Scalar>(scalar);
  c.frames = frames;
  c.geometry.kind = static_cast<BeamKind>(kind);
  std::copy(values.begin(), values.end(), c.geometry.values);
  c.samples = samples, c.lines = lines, c.height = height, c.width = width;
  c.source = at<const void>(source);
  c.target = at<void>(target);
  c.mask = at<std::uint8_t>(mask);
  c.threads = threads;
  const cuda::DeviceGuard guard(device);
  cuda::scan_conversion(c, at<void>(stream));
}

// The arguments that _core.dag and _core.dag_backward begin with: the problem's 19, then
// double_map, threads, device and stream.
struct DagCall {
  DagProblem problem;
  DagOptions options;
  void* stream;
};

DagCall parse_dag(const py::args& a, std::size_t more) {
  if (a.size() != 23 + more) throw py::type_error("wrong number of arguments");
  const auto address = [&](int i) { return a[i].cast<std::uintptr_t>(); };
  DagCall c{};
  DagProblem& p = c.problem;
  p.image = at<const void>(address(0));
  p.scalar = static_cast<Scalar>(a[1].cast<int>());
  p.frames = a[2].cast<int>();
  p.height = a[3].cast<int>();
  p.width = a[4].cast<int>();
  p.valid = at<const std::uint8_t>(address(5));
  p.valid_shared = a[6].cast<bool>();
  p.xi = a[7].cast<double>();
  p.alpha = a[8].cast<double>();
  p.var = a[9].cast<double>();
  p.power = a[10].cast<double>();
  p.half_width = a[11].cast<int>();
  p.variant = a[12].cast<int>();
  p.normalise = a[13].cast<bool>();
  p.reference = at<const double>(address(14));
  p.reference_shared = a[15].cast<bool>();
  p.needle = at<const float>(address(16));
  p.artifact = at<const float>(address(17));
  p.artifact_shared = a[18].cast<bool>();
  c.options.double_map = a[19].cast<bool>();
  c.options.threads = a[20].cast<int>();
  const cuda::DeviceGuard device(a[21].cast<int>());
  c.stream = at<void>(address(22));
  return c;
}

void dag(const py::args& a) {
  const DagCall c = parse_dag(a, 1);
  cuda::dag(c.problem, c.options, at<void>(a[23].cast<std::uintptr_t>()), c.stream);
}

void dag_backward(const py::args& a) {
  const DagCall c = parse_dag(a, 4);
  const auto address = [&](int i) { return a[23 + i].cast<std::uintptr_t>(); };
  cuda::dag_backward(c.problem, c.options, at<const void>(address(0)), at<const void>(address(1)),
                     at<void>(address(2)), at<double>(address(3)), c.stream);
}

DespeckleProblem despeckle_problem(std::uintptr_t image, int scalar, int frames, int height,
                                   int width, std::uintptr_t valid, bool valid_shared,
                                   bool double_result, int threads) {
  DespeckleProblem p{};
  p.image = at<const void>(image);
  p.scalar = static_cast<Scalar>(scalar);
  p.frames = frames, p.height = height, p.width = width;
  p.valid = at<const std::uint8_t>(valid);
  p.valid_shared = valid_shared;
  p.double_result = double_result;
  p.threads = threads;
  return p;
}

// The argument lists of _core.srad and _core.median.
std::vector<int> srad(std::uintptr_t image, int scalar, int frames, int height, int width,
                      std::uintptr_t valid, bool valid_shared, const std::array<int, 4>& roi,
                      int iterations, double tolerance, double step, bool double_result,
                      int threads, int device, std::uintptr_t stream, std::uintptr_t result) {
  DespeckleProblem p = despeckle_problem(image, scalar, frames, height, width, valid, valid_shared,
                                         double_result, threads);
  std::copy(roi.begin(), roi.end(), p.roi);
  p.iterations = iterations;
  p.tolerance = tolerance;
  p.step = step;
  const cuda::DeviceGuard guard(device);
  std::vector<int> done(frames);
  cuda::srad(p, at<void>(result), done.data(), at<void>(stream));
  return done;
}

void median(std::uintptr_t image, int scalar, int frames, int height, int width,
            std::uintptr_t valid, bool valid_shared, int size, bool double_result, int threads,
            int device, std::uintptr_t stream, std::uintptr_t result) {
  const DespeckleProblem p = despeckle_problem(image, scalar, frames, height, width, valid,
                                               valid_shared, double_result, threads);
  const cuda::DeviceGuard guard(device);
  cuda::median(p, size, at<void>(result), at<void>(stream));
}

// The argument list of _core.pgm.
void pgm(std::uintptr_t confidence, bool in_double, bool logits, int frames, int height, int width,
         std::uintptr_t labels, std::uintptr_t valid, bool valid_shared, double gamma, double s,
         double sigma, const std::array<double, 3>& label_weights, bool constants, bool mean,
         int threads, int device, std::uintptr_t stream, std::uintptr_t loss, std::uintptr_t sums,
         std::uintptr_t d_confidence, std::uintptr_t d_map, std::uintptr_t map, bool parts) {
  PgmProblem p{};
  p.confidence = at<const void>(confidence);
  p.in_double = in_double, p.logits = logits;
  p.frames = frames, p.height = height, p.width = width;
  p.labels = at<const std::uint8_t>(labels);
  p.valid = at<const std::uint8_t>(valid);
  p.valid_shared = valid_shared;
  p.gamma = gamma, p.s = s, p.sigma = sigma;
  std::copy(label_weights.begin(), label_weights.end(), p.label_weights);
  p.constants = constants, p.mean = mean;
  p.threads = threads;
  const PgmResult result{at<void>(loss),        at<double>(sums), at<void>(d_confidence),
                         at<const void>(d_map), at<void>(map),    parts};
  const cuda::DeviceGuard guard(device);
  cuda::pgm(p, result, at<void>(stream));
}

// The argument list of _core.pgm_scale.
void pgm_scale(std::uintptr_t gradient, bool in_double, long count, std::uintptr_t scale,
               int threads, int device, std::uintptr_t stream) {
  const cuda::DeviceGuard guard(device);
  cuda::pgm_scale(at<void>(gradient), in_double, count, at<const void>(scale), threads,
                  at<void>(stream));
}

// The argument list of _core.uncertainty.
void uncertainty(std::uintptr_t logits, bool in_double, int draws, int images, int classes,
                 long pixels, int threads, int device, std::uintptr_t stream, std::uintptr_t result,
                 std::uintptr_t noise, int samples) {
  const UncertaintyProblem p{
      at<const void>(logits), in_double, draws, images, classes, pixels, threads,
      at<const void>(noise),  samples};
  const cuda::DeviceGuard guard(device);
  cuda::uncertainty(p, at<void>(result), at<void>(stream));
}

}  // namespace
}  // namespace usconf

PYBIND11_MODULE(_emulated, m) {
  using namespace usconf;
  m.def("random_walk", &random_walk);
  m.def("random_walk_backward", &random_walk_backward);
  m.def("random_walk_edges", &random_walk_edges);
  m.def("random_walk_factor_bytes",
        [](const py::args& a) { return cuda::random_walk_factor_bytes(parse(a, 0).problem); });
  m.def("random_walk_memory", [](const py::args& a) {
    const Call c = parse(a, 0);
    return cuda::random_walk_memory(c.problem, c.options);
  });
  m.def("scan_conversion", &scan_conversion);
  m.def("dag", &dag);
  m.def("dag_backward", &dag_backward);
  m.def("srad", &srad);
  m.def("median", &median);
  m.def("pgm", &pgm);
  m.def("pgm_scale", &pgm_scale);
  m.def("uncertainty", &uncertainty);
  m.def("clear_cache", &cuda::clear_cache);
  m.def("set_thread_order", [](int order) {
    if (order < 0 || order > 2) throw py::value_error("order must be 0, 1 or 2");
    emulation::machine().order = static_cast<emulation::Order>(order);
  });
  m.def("set_memory_limit", [](std::size_t bytes) { emulation::memory().limit = bytes; });
  m.def("memory_used", [] { return emulation::memory().used; });
  m.def("memory_peak", [](bool reset) {
    auto& memory = emulation::memory();
    const std::size_t peak = memory.peak;
    if (reset) memory.peak = memory.used;
    return peak;
  });
  m.def("devices", [] { return cuda::info().devices; });
  m.def("launches", [] { return emulation::machine().launches; });
}
