#include <mutex>
#include <new>
#include <stdexcept>
#include <unordered_map>

#include "launch.h"

namespace usconf::cuda {
namespace {

std::string version(int v) {
  return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
}

// Empty where driver and runtime fit together. Within one major version an older driver will do.
std::string driver_complaint() {
  int driver = 0, runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
  if (driver == 0) return "no NVIDIA driver found";
  if (driver / 1000 < runtime / 1000)
    return "the NVIDIA driver supports CUDA " + version(driver) +
           " only, this build of usconf needs " + version(runtime) +
           ": update the driver or build usconf with an older CUDA toolkit";
  return {};
}

// A std::bad_alloc that says what there was no memory for.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(const char* doing)
      : message_(std::string("out of device memory in ") + doing +
                 "; pass fewer frames at once or a smaller image, or move it to the CPU") {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

struct Pools {
  std::mutex busy;
  std::unordered_map<int, cudaMemPool_t> of;  // by device; null: the device has no pools
};
Pools& pools() {
  static Pools* const p = new Pools;  // never destroyed: the driver may be gone before us at exit
  return *p;
}

cudaMemPool_t pool_of(int device) {
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.busy);
  if (const auto at = all.of.find(device); at != all.of.end()) return at->second;
  int supported = 0;
  check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device),
        "asking a device for its properties");
  cudaMemPool_t pool = nullptr;
  if (supported) {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    check(cudaMemPoolCreate(&pool, &properties), "creating a memory pool");
    std::uint64_t keep = Workspace::pool_bytes;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
          "creating a memory pool");
  }
  return all.of[device] = pool;
}

}  // namespace

void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // or the next call would report it again
  if (error == cudaErrorMemoryAllocation) throw OutOfMemory(doing);
  std::string what = std::string("CUDA failed in ") + doing + ": " + cudaGetErrorString(error);
  if (const std::string complaint = driver_complaint(); !complaint.empty())
    what += "; " + complaint;
  throw std::runtime_error(what);
}

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "asking for the current device");
  return device;
}

DeviceGuard::DeviceGuard(int device) {
  const int former = current_device();
  if (former == device) return;
  check(cudaSetDevice(device), "choosing the device");
  former_ = former;
}

DeviceGuard::~DeviceGuard() {
  if (former_ >= 0) static_cast<void>(cudaSetDevice(former_));
}

Workspace::Workspace(std::size_t bytes, cudaStream_t stream) : stream_(stream) {
  if (bytes == 0) return;
  const cudaMemPool_t pool = pool_of(current_device());
  pooled_ = pool != nullptr;
  check(pooled_ ? cudaMallocFromPoolAsync(&data_, bytes, pool, stream) : cudaMalloc(&data_, bytes),
        "reserving the workspace");
}

Workspace::~Workspace() {
  // cudaFree waits for the device, so the stream's work is over in either case.
  if (data_) static_cast<void>(pooled_ ? cudaFreeAsync(data_, stream_) : cudaFree(data_));
}

void trim_pools() {
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.busy);
  for (const auto& [device, pool] : all.of) {
    if (!pool) continue;
    const DeviceGuard guard(device);
    check(cudaDeviceSynchronize(), "freeing cached memory");
    check(cudaMemPoolTrimTo(pool, 0), "freeing cached memory");
  }
}

Info info() {
  Info r{};
  static_cast<void>(cudaRuntimeGetVersion(&r.runtime));
  if (cudaDriverGetVersion(&r.driver) != cudaSuccess) r.driver = 0;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    count = 0;
    r.message = driver_complaint();
    if (r.message.empty()) r.message = cudaGetErrorString(error);
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) == cudaSuccess)
      r.devices.push_back(std::string(properties.name) + " (sm_" +
                          std::to_string(properties.major) + std::to_string(properties.minor) +
                          ")");
  }
  return r;
}

}  // namespace usconf::cuda
