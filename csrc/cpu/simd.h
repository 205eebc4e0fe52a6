// Vectors of floats in the compiler's own vector types, so that one kernel text serves SSE2, NEON, AVX2 and AVX-512.
//
// Only for files compiled by the stubs `isa_*.cpp`. Everything lives in the namespace of the instruction set and is
// `static inline`: a function shared between objects built with different flags would be linked from any one of them,
// and the AVX-512 copy would crash an older processor. For the same reason: no std templates here.
#pragma once

#if defined(__SSE__)
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

namespace mrsi_fast {
namespace MRSI_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));

static inline Vec splat(float value) { return value - Vec{}; }

// Unaligned; memcpy becomes one instruction.
static inline Vec load(const float* p) {
    Vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }

// The last `count` < kLanes values of a row; the other lanes are zero.
static inline Vec load_part(const float* p, int64_t count) {
    float lanes[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
    return load(lanes);
}

static inline void store_part(float* p, Vec v, int64_t count) {
    float lanes[kLanes];
    store(lanes, v);
    for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

// Lane 0 to last, always in this order.
static inline float sum_lanes(Vec v) {
    float lanes[kLanes];
    store(lanes, v);
    float sum = 0.0f;
    for (int i = 0; i < kLanes; ++i) sum += lanes[i];
    return sum;
}

// In pairs: the order of comparisons changes nothing, and it is shorter than one after the other.
static inline float largest_lane(Vec v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
    return lanes[0];
}

// The smaller of each pair; a NaN in v stays (the x86 instructions return their second operand then).
static inline Vec at_most(Vec v, float bound) {
#if defined(__AVX512F__)
    return _mm512_min_ps(splat(bound), v);
#elif defined(__AVX2__)
    return _mm256_min_ps(splat(bound), v);
#elif defined(__SSE__)
    return _mm_min_ps(splat(bound), v);
#else
    return (v > bound) ? splat(bound) : v;
#endif
}

static inline Vec at_least(Vec v, float bound) {
#if defined(__AVX512F__)
    return _mm512_max_ps(splat(bound), v);
#elif defined(__AVX2__)
    return _mm256_max_ps(splat(bound), v);
#elif defined(__SSE__)
    return _mm_max_ps(splat(bound), v);
#else
    return (v < bound) ? splat(bound) : v;
#endif
}

// exp(t) / 2, within 2 units in the last place; NaN stays NaN, t above 88.7 gives +inf, t below -86 counts as -86.
// Cody-Waite reduction, exp(t) = 2^n exp(r) with |r| <= ln2/2, and a minimax polynomial for exp(r) (relative error 3e-9).
static inline Vec half_exp(Vec t) {
    t = at_least(at_most(t, 89.0f), -86.0f);
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    const Vec shifted = t * 1.44269504088896341f + magic;
    const Vec n = shifted - magic;
    const Vec r = (t - n * 0.693359375f) - n * -2.12194440e-4f;
    Vec p = r * 1.381454058e-3f + 8.368745446e-3f;
    p = p * r + 4.166838899e-2f;
    p = p * r + 1.666652113e-1f;
    p = p * r + 4.999999404e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    // 2^(n-1) from the integer in the low bits of `shifted`; callers apply the last factor 2, so that n = 128 is in range.
    const IntVec exponent = (IntVec)shifted + (126 - 0x4B400000);
    return p * (Vec)(exponent << 23);
}

static inline Vec one_plus_exp(Vec t) { return half_exp(t) * 2.0f + 1.0f; }

static inline Vec silu(Vec v) { return v / one_plus_exp(-v); }

// d silu(v) / dv
static inline Vec silu_slope(Vec v) {
    const Vec sigmoid = 1.0f / one_plus_exp(-v);
    return sigmoid * (v * (1.0f - sigmoid) + 1.0f);
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
