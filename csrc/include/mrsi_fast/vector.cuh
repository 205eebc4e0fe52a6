// Moves between memory (float32, float16, bfloat16) and float registers, 16 bytes at a time where the layout allows it.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#include <string.h>

namespace mrsi_fast {

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T from_float(float v);
template <>
__device__ __forceinline__ float from_float<float>(float v) {
    return v;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float v) {
    return __float2half_rn(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
    return __float2bfloat16_rn(v);
}

// Two values side by side in one 32-bit register, the first in the low half: the order of mma fragments.
template <class T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
    const T pair[2] = {from_float<T>(low), from_float<T>(high)};
    uint32_t bits;
    memcpy(&bits, pair, sizeof(bits));
    return bits;
}

// kSize values of T in a register or in memory: kSize sizeof(T) is 16 (one 128-bit access) or kSize is 1.
template <class T, int kSize>
struct Packet {
    static_assert(kSize * sizeof(T) == 16, "a packet is 16 bytes or one value");
    uint4 bits;
    __device__ __forceinline__ static Packet load(const T* p) { return {*reinterpret_cast<const uint4*>(p)}; }
    __device__ __forceinline__ void store(T* p) const { *reinterpret_cast<uint4*>(p) = bits; }
    __device__ __forceinline__ void unpack(float (&v)[kSize]) const {
        T values[kSize];
        memcpy((void*)values, &bits, sizeof(bits));
#pragma unroll
        for (int i = 0; i < kSize; ++i) v[i] = to_float(values[i]);
    }
    __device__ __forceinline__ static Packet pack(const float (&v)[kSize]) {
        T values[kSize];
#pragma unroll
        for (int i = 0; i < kSize; ++i) values[i] = from_float<T>(v[i]);
        Packet packet;
        memcpy(&packet.bits, (const void*)values, sizeof(packet.bits));
        return packet;
    }
};

template <class T>
struct Packet<T, 1> {
    T bits;
    __device__ __forceinline__ static Packet load(const T* p) { return {*p}; }
    __device__ __forceinline__ void store(T* p) const { *p = bits; }
    __device__ __forceinline__ void unpack(float (&v)[1]) const { v[0] = to_float(bits); }
    __device__ __forceinline__ static Packet pack(const float (&v)[1]) { return {from_float<T>(v[0])}; }
};

template <class T>
constexpr int kPacketSize = 16 / sizeof(T);

}  // namespace mrsi_fast
