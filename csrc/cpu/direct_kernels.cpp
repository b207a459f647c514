#include "direct_kernels.h"

#include "front_kernels.h"
#include "tile_elimination.h"
#include "tile_sweeps.h"

namespace usconf::cpu::USCONF_ISA_NAMESPACE {
namespace {

constexpr DirectKernels table = {
    tile_lanes, eliminate_tiles, forward_tiles, backward_tiles, add_update, add_schur,
    eliminate,  update,          pack,          forward,        backward,
};

}  // namespace

const DirectKernels& direct_kernels() { return table; }

}  // namespace usconf::cpu::USCONF_ISA_NAMESPACE
