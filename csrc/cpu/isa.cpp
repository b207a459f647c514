#include "isa.h"

#include <cstdlib>
#include <stdexcept>

namespace usconf::cpu {
namespace {

constexpr const char* names[] = {"baseline", "x86-64-v3", "x86-64-v4"};

Isa best() {
#if defined(USCONF_ALL_ISAS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd"))
    return Isa::x86_64_v4;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return Isa::x86_64_v3;
#endif
  return Isa::baseline;
}

Isa choose() {
  const Isa most = best();
  const char* wanted = std::getenv("USCONF_ISA");
  if (!wanted || !*wanted) return most;
  for (int i = 0; i <= static_cast<int>(most); ++i)
    if (std::string(wanted) == names[i]) return static_cast<Isa>(i);
  std::string usable;
  for (const auto& name : isa_list()) usable += (usable.empty() ? "" : ", ") + name;
  throw std::runtime_error("USCONF_ISA must be one of " + usable + " on this machine, got " +
                           wanted + "; unset it or choose one of these");
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

std::string isa_name() { return names[static_cast<int>(isa())]; }

std::vector<std::string> isa_list() {
  std::vector<std::string> list;
  for (int i = 0; i <= static_cast<int>(best()); ++i) list.emplace_back(names[i]);
  return list;
}

}  // namespace usconf::cpu
