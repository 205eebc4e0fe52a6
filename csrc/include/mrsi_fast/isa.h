// Instruction sets: which ones this build holds, which one this processor runs, which one is in use.
//
// A kernel file (`cpu/<name>.inl`) is compiled once per instruction set by the stubs `cpu/isa_*.cpp`, each time inside a
// namespace of its own. What it exports is declared here with MRSI_FAST_PER_ISA and chosen with MRSI_FAST_PICK.
#pragma once

#if defined(__x86_64__) && defined(__linux__)  // as `isas` in build.py
#define MRSI_FAST_X86 1
#endif

namespace mrsi_fast {

enum class Isa { plain, avx2, avx512 };

constexpr Isa kAllIsas[] = {Isa::plain, Isa::avx2, Isa::avx512};

const char* isa_name(Isa isa);

// In this build and on this processor.
bool isa_usable(Isa isa);

// The best usable one, or what `use_isa` set.
Isa active_isa();

// Returns the one in use before. The caller has checked `isa_usable`.
Isa use_isa(Isa isa);

}  // namespace mrsi_fast

#ifdef MRSI_FAST_X86
#define MRSI_FAST_PER_ISA(...) \
    namespace plain {          \
    __VA_ARGS__                \
    }                          \
    namespace avx2 {           \
    __VA_ARGS__                \
    }                          \
    namespace avx512 {         \
    __VA_ARGS__                \
    }
#define MRSI_FAST_PICK(name)                                              \
    (::mrsi_fast::active_isa() == ::mrsi_fast::Isa::avx512 ? avx512::name \
     : ::mrsi_fast::active_isa() == ::mrsi_fast::Isa::avx2 ? avx2::name   \
                                                           : plain::name)
#else
#define MRSI_FAST_PER_ISA(...) \
    namespace plain {          \
    __VA_ARGS__                \
    }
#define MRSI_FAST_PICK(name) (plain::name)
#endif
