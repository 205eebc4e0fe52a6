// Reads cpuid once and keeps the choice of instruction set.
#include "mrsi_fast/isa.h"

#include <atomic>

namespace mrsi_fast {
namespace {

Isa best_isa() {
    Isa best = Isa::plain;
    for (Isa isa : kAllIsas) {
        if (isa_usable(isa)) best = isa;
    }
    return best;
}

std::atomic<Isa>& current() {
    static std::atomic<Isa> isa{best_isa()};
    return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx512: return "avx512";
        case Isa::avx2: return "avx2";
        default: return "plain";
    }
}

bool isa_usable(Isa isa) {
#ifdef MRSI_FAST_X86
    // __builtin_cpu_supports also asks whether the operating system saves the wide registers.
    if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == Isa::avx512) {
        return isa_usable(Isa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
#endif
    return isa == Isa::plain;
}

Isa active_isa() { return current().load(std::memory_order_relaxed); }

Isa use_isa(Isa isa) { return current().exchange(isa); }

}  // namespace mrsi_fast
