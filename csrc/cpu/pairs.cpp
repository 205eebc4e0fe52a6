// Asks once whether convolutions on pairs of bfloat16 can run here.
#include "mrsi_fast/network.h"

#ifdef MRSI_FAST_WITH_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mrsi_fast {

#ifdef MRSI_FAST_WITH_AMX
namespace amx {
extern const ConvKernels kPairKernels;
}

namespace {

// Tiles, products of bfloat16 in them, and Linux (5.16 and newer) letting this process use their registers.
bool has_tiles() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!isa_usable(Isa::avx512) || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return false;
    const bool narrows = a & 1u << 5;  // AVX512_BF16
    if (!narrows || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned kTiles = 1u << 24, kProducts = 1u << 22;
    constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return d & kTiles && d & kProducts && syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}

}  // namespace

const ConvKernels* pair_kernels() {
    static const bool usable = has_tiles();
    return usable ? &amx::kPairKernels : nullptr;
}
#else
const ConvKernels* pair_kernels() { return nullptr; }
#endif

}  // namespace mrsi_fast
