// The CUDA devices, for code that nvcc does not compile as well.
#pragma once

#include <string>
#include <vector>

namespace usconf::cuda {

// Makes a device current, and the former one again at its end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int former_ = -1;  // -1: nothing to restore
};

// What show_config reports.
struct Info {
  int runtime, driver;  // 13000: 13.0; driver 0: none
  std::vector<std::string> devices;
  std::string message;  // why there is no device; empty where there is one
};
Info info();

}  // namespace usconf::cuda
