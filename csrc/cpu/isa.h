// Which build of the CPU kernels this process uses. Every *_kernels.cpp is compiled once per
// instruction set, in a namespace named after it, and offers its functions as one table.
#pragma once

#include <string>
#include <vector>

namespace usconf::cpu {

enum class Isa { baseline, x86_64_v3, x86_64_v4 };

Isa isa();  // best the processor has, or what USCONF_ISA names
std::string isa_name();
std::vector<std::string> isa_list();  // usable here, worst first

}  // namespace usconf::cpu

// In a per-ISA source: namespace usconf::cpu::USCONF_ISA_NAMESPACE. In a dispatcher:
//   USCONF_SELECT(assembly_kernels) -> the table of the chosen build.
#if defined(USCONF_ALL_ISAS)
#define USCONF_DECLARE_TABLE(Type, function) \
  namespace baseline {                       \
  const Type& function();                    \
  }                                          \
  namespace x86_64_v3 {                      \
  const Type& function();                    \
  }                                          \
  namespace x86_64_v4 {                      \
  const Type& function();                    \
  }                                          \
  inline const Type& function() {            \
    switch (isa()) {                         \
      case Isa::x86_64_v4:                   \
        return x86_64_v4::function();        \
      case Isa::x86_64_v3:                   \
        return x86_64_v3::function();        \
      default:                               \
        return baseline::function();         \
    }                                        \
  }
#else
#define USCONF_DECLARE_TABLE(Type, function) \
  namespace baseline {                       \
  const Type& function();                    \
  }                                          \
  inline const Type& function() { return baseline::function(); }
#endif
