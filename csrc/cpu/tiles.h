// AMX's instructions on its eight tile registers, each of 16 rows of 64 bytes: 16 floats, or 16 pairs of bfloat16.
#pragma once

#include <stdint.h>

namespace mrsi_fast {
namespace MRSI_ISA {

constexpr int kRegisterRows = 16;
constexpr int kRegisterFloats = 16 * kRegisterRows;

// As ldtilecfg reads it.
struct TileShapes {
    uint8_t palette = 1, start_row = 0, unused[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static inline void tile_configure(const TileShapes* shapes) { __asm__ volatile("ldtilecfg %0" ::"m"(*shapes)); }
static inline void tile_release() { __asm__ volatile("tilerelease"); }

template <int TILE>
static inline void tile_zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(TILE));
}

// Rows are `pitch` floats apart.
template <int TILE>
static inline void tile_load(const float* from, int64_t pitch) {
    __asm__ volatile("tileloadd (%0,%1,4), %%tmm%c2" ::"r"(from), "r"(pitch), "i"(TILE) : "memory");
}
template <int TILE>
static inline void tile_store(float* to, int64_t pitch) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,4)" ::"r"(to), "r"(pitch), "i"(TILE) : "memory");
}

// SUM[i][j] += A[i][2d] B[d][2j] + A[i][2d + 1] B[d][2j + 1] over d, bfloat16 times bfloat16 in float32.
template <int SUM, int A, int B>
static inline void tile_multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(A), "i"(B));
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
