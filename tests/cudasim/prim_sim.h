// CPU stand-ins for csrc/include/mrsi_fast/prim.cuh: what each instruction does to the registers of a whole warp.
#pragma once
#include <deque>

#include "cudasim.h"

namespace mrsi_fast::prim {

namespace detail {

struct LoadArgument {
    const void* row;
    uint32_t registers[4];
};

inline void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed, const void* site) {
    if (reinterpret_cast<uintptr_t>(row) % 16) throw std::runtime_error("ldmatrix: address not 16-byte aligned");
    LoadArgument mine{row, {}};
    ::cudasim::collective(0xffffffffu, &mine, site, [transposed](uint32_t, void** lanes) {
        auto& statistics = ::cudasim::simulator().statistics;
        for (int matrix = 0; matrix < 4; ++matrix) {
            const uint16_t* rows[8];
            // Shared memory serves 128 bytes a wavefront: rows in the same 16-byte column of that line wait for each other.
            int in_column[8] = {}, wavefronts = 0;
            for (int j = 0; j < 8; ++j) {
                const void* p = static_cast<LoadArgument*>(lanes[matrix * 8 + j])->row;
                rows[j] = static_cast<const uint16_t*>(p);
                wavefronts = std::max(wavefronts, ++in_column[reinterpret_cast<uintptr_t>(p) / 16 % 8]);
            }
            statistics.ldmatrix_wavefronts += wavefronts;
            statistics.ldmatrix_ideal += 1;
            for (int lane = 0; lane < 32; ++lane) {
                const int major = lane / 4, minor = lane % 4 * 2;
                const uint16_t pair[2] = {transposed ? rows[minor][major] : rows[major][minor],
                                          transposed ? rows[minor + 1][major] : rows[major][minor + 1]};
                memcpy(&static_cast<LoadArgument*>(lanes[lane])->registers[matrix], pair, 4);
            }
        }
    });
    memcpy(r, mine.registers, sizeof(r));
}

struct MmaArgument {
    float* d;
    const uint32_t *a, *b;
};

template <class T>
void unpack(uint32_t bits, float& low, float& high) {
    T pair[2];
    memcpy(static_cast<void*>(pair), &bits, 4);
    low = float(pair[0]);
    high = float(pair[1]);
}

// Fragment layouts: PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".
template <class T>
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const void* site) {
    MmaArgument mine{d, a, b};
    ::cudasim::collective(0xffffffffu, &mine, site, [](uint32_t, void** lanes) {
        ++::cudasim::simulator().statistics.mma;
        float A[16][16], B[16][8];
        for (int lane = 0; lane < 32; ++lane) {
            const auto* x = static_cast<MmaArgument*>(lanes[lane]);
            const int g = lane / 4, t = lane % 4 * 2;
            unpack<T>(x->a[0], A[g][t], A[g][t + 1]);
            unpack<T>(x->a[1], A[g + 8][t], A[g + 8][t + 1]);
            unpack<T>(x->a[2], A[g][t + 8], A[g][t + 9]);
            unpack<T>(x->a[3], A[g + 8][t + 8], A[g + 8][t + 9]);
            unpack<T>(x->b[0], B[t][g], B[t + 1][g]);
            unpack<T>(x->b[1], B[t + 8][g], B[t + 9][g]);
        }
        for (int lane = 0; lane < 32; ++lane) {
            float* out = static_cast<MmaArgument*>(lanes[lane])->d;
            for (int i = 0; i < 4; ++i) {
                const int row = lane / 4 + (i / 2) * 8, column = lane % 4 * 2 + i % 2;
                float sum = 0.f;
                for (int k = 0; k < 16; ++k) sum += A[row][k] * B[k][column];
                out[i] += sum;
            }
        }
    });
}

// Asynchronous copies of one thread: lists that land when waited for (even seeds), so that a missing wait reads NaN.
struct Copy {
    void* shared;
    const void* global;
    bool valid;
    void land() const {
        if (valid)
            memcpy(shared, global, 16);
        else
            memset(shared, 0, 16);
    }
};
struct CopyQueue {
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> committed;
};

inline CopyQueue& copy_queue() {
    static thread_local std::vector<CopyQueue> queues;
    auto& s = ::cudasim::simulator();
    if (queues.size() < s.fibers.size()) queues.resize(s.fibers.size());
    return queues[s.current - s.fibers.data()];
}

}  // namespace detail

CUDASIM_NOINLINE void ldmatrix_x4(uint32_t (&r)[4], const void* row) { detail::ldmatrix(r, row, false, CUDASIM_SITE); }
CUDASIM_NOINLINE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
    detail::ldmatrix(r, row, true, CUDASIM_SITE);
}
CUDASIM_NOINLINE void mma_16816(__half, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    detail::mma<__half>(d, a, b, CUDASIM_SITE);
}
CUDASIM_NOINLINE void mma_16816(__nv_bfloat16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    detail::mma<__nv_bfloat16>(d, a, b, CUDASIM_SITE);
}

// Odd seeds let a copy land at once, even seeds as late as it may: a kernel must be right under both.
inline void cp_async_16(void* shared, const void* global, bool valid) {
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16)
        throw std::runtime_error("cp.async: address not 16-byte aligned");
    const detail::Copy copy{shared, global, valid};
    if (::cudasim::simulator().seed & 1)
        copy.land();
    else
        detail::copy_queue().open.push_back(copy);
}
inline void cp_async_commit() {
    auto& queue = detail::copy_queue();
    queue.committed.push_back(std::move(queue.open));
    queue.open.clear();
}
template <int kPending>
void cp_async_wait() {
    auto& queue = detail::copy_queue();
    for (; int(queue.committed.size()) > kPending; queue.committed.pop_front())
        for (const detail::Copy& copy : queue.committed.front()) copy.land();
}

}  // namespace mrsi_fast::prim
