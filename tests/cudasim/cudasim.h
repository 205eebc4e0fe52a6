// Runs the project's CUDA kernels on the CPU, unchanged, so that their semantics can be tested without a GPU.
//
// One fiber per CUDA thread; the threads of a block take turns on one CPU thread and blocks run one after another.
// Fibers change only at __syncthreads and at warp collectives, and a seed chooses whose turn it is:
//   0, 1  warps in step, forward / backward        2, 3  one warp as far as it gets, forward / backward
//   4...  random warps for random stretches, lanes in random order
// Blocks run in a shuffled order for every seed but 0. A kernel whose result depends on the seed has a race.
// Barriers and collectives check that the threads they need really come; dynamic shared memory is filled with NaN
// before each block and allocated to the byte, so that AddressSanitizer sees a step beyond it. Static shared memory is
// refused (it would not be poisoned). Memory order, speed and approximate instructions are not modelled.
// Only the subset of CUDA that our kernels use is here.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define CUDASIM_ASAN 1
#endif
#if !defined(__x86_64__)
#error "the context switch below is written for x86-64"
#endif

#undef __shared__
#define __shared__ static_assert(false, "use MRSI_FAST_DYNAMIC_SHARED: static shared memory would not be poisoned");
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline __attribute__((always_inline))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

namespace cudasim {

// Saves the callee-saved registers (System V: rbx rbp r12-r15) and the stack pointer, then continues on another stack.
extern "C" void cudasim_switch(void** save_stack_pointer, void* load_stack_pointer);
#ifdef CUDASIM_IMPLEMENTATION
asm(R"(
.text
.globl cudasim_switch
.type cudasim_switch,@function
cudasim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cudasim_switch,.-cudasim_switch
)");
#endif

enum class State : uint8_t { kRunnable, kAtBarrier, kInCollective, kReturned };

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    uint3 thread{};
    int lane = 0, warp = 0;
    State state = State::kRunnable;
    const void* site = nullptr;  // of the barrier it waits at
#ifdef CUDASIM_ASAN
    void* fake_stack = nullptr;
#endif
};

// A warp collective that some of its lanes have reached.
struct Collective {
    uint32_t mask, arrived;
    const void* site;
    void* argument[32];
};

// What happened since the last reset.
struct Statistics {
    uint64_t blocks, barriers, collectives;
};

struct Simulator {
    static constexpr size_t kStackBytes = 64 << 10;
    dim3 grid, block;
    uint3 block_index{};
    std::vector<Fiber> fibers;
    std::vector<char*> stacks;
    std::vector<std::vector<Collective>> collectives;  // per warp
    Fiber* current = nullptr;
    void* scheduler_stack_pointer = nullptr;
    const std::function<void()>* body = nullptr;
    unsigned char* shared = nullptr;
    size_t shared_bytes = 0;
    std::string error;
    Statistics statistics{};
    uint64_t seed = 0;
#ifdef CUDASIM_ASAN
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
    void* scheduler_fake_stack = nullptr;
#endif
    ~Simulator() {
        for (char* stack : stacks) free(stack);
        free(shared);
    }
};

inline Simulator& simulator() {
    static thread_local Simulator instance;
    return instance;
}

// ---- fibers ----

inline void yield_to_scheduler() {
    Simulator& s = simulator();
    Fiber* me = s.current;
#ifdef CUDASIM_ASAN
    __sanitizer_start_switch_fiber(me->state == State::kReturned ? nullptr : &me->fake_stack, s.scheduler_stack,
                                   s.scheduler_stack_bytes);
#endif
    cudasim_switch(&me->stack_pointer, s.scheduler_stack_pointer);
#ifdef CUDASIM_ASAN
    __sanitizer_finish_switch_fiber(me->fake_stack, &s.scheduler_stack, &s.scheduler_stack_bytes);
#endif
}

inline void fiber_entry() {
    Simulator& s = simulator();
#ifdef CUDASIM_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &s.scheduler_stack, &s.scheduler_stack_bytes);
#endif
    try {
        (*s.body)();
    } catch (std::exception& e) {
        s.error = e.what();
    }
    s.current->state = State::kReturned;
    yield_to_scheduler();
    abort();
}

inline void resume(Fiber& fiber) {
    Simulator& s = simulator();
    s.current = &fiber;
#ifdef CUDASIM_ASAN
    __sanitizer_start_switch_fiber(&s.scheduler_fake_stack, fiber.stack, Simulator::kStackBytes);
#endif
    cudasim_switch(&s.scheduler_stack_pointer, fiber.stack_pointer);
#ifdef CUDASIM_ASAN
    __sanitizer_finish_switch_fiber(s.scheduler_fake_stack, nullptr, nullptr);
#endif
    if (!s.error.empty()) throw std::runtime_error(s.error);
}

inline void prepare(Fiber& fiber, int index, char* stack, const dim3& block) {
    void** top = reinterpret_cast<void**>(stack + Simulator::kStackBytes - 64);
    *--top = nullptr;  // the entry function never returns; this word aligns its stack
    *--top = reinterpret_cast<void*>(&fiber_entry);
    for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
    fiber = Fiber{};
    fiber.stack = stack;
    fiber.stack_pointer = top;
    fiber.lane = index % 32;
    fiber.warp = index / 32;
    fiber.thread = {index % block.x, index / block.x % block.y, index / (block.x * block.y)};
}

// ---- collectives: `work(mask, arguments by lane)` runs once, in the lane that comes last ----

template <class Work>
void collective(uint32_t mask, void* argument, const void* site, Work&& work) {
    Simulator& s = simulator();
    Fiber* me = s.current;
    const int lanes = std::min<int>(32, int(s.fibers.size()) - me->warp * 32);
    if (lanes < 32) mask &= (1u << lanes) - 1;
    if (!(mask >> me->lane & 1)) throw std::runtime_error("warp collective: the calling lane is not in its mask");
    auto& open = s.collectives[me->warp];
    auto it = std::find_if(open.begin(), open.end(), [&](const Collective& c) {
        return c.mask == mask && c.site == site && !(c.arrived >> me->lane & 1);
    });
    if (it == open.end()) it = open.insert(open.end(), Collective{mask, 0, site, {}});
    it->argument[me->lane] = argument;
    it->arrived |= 1u << me->lane;
    if (it->arrived != mask) {
        me->state = State::kInCollective;
        yield_to_scheduler();
        return;
    }
    work(mask, it->argument);
    open.erase(it);
    ++s.statistics.collectives;
    for (int lane = 0; lane < 32; ++lane)
        if (lane != me->lane && (mask >> lane & 1)) s.fibers[me->warp * 32 + lane].state = State::kRunnable;
}

template <class T>
T shuffle(uint32_t mask, T value, int source, const void* site) {
    static_assert(std::is_trivially_copyable_v<T>);
    struct Exchange {
        T value, result;
        int source;
    } mine{value, value, source};
    collective(mask, &mine, site, [](uint32_t m, void** lanes) {
        for (int lane = 0; lane < 32; ++lane) {
            if (!(m >> lane & 1)) continue;
            auto* e = static_cast<Exchange*>(lanes[lane]);
            if (!(m >> e->source & 1)) throw std::runtime_error("shuffle reads a lane outside its mask");
            e->result = static_cast<Exchange*>(lanes[e->source])->value;
        }
    });
    return mine.result;
}

// ---- scheduler ----

// Runs every runnable lane of a warp once; says whether there was one.
inline bool step_warp(Simulator& s, int warp, std::vector<int>& order, std::mt19937_64& random) {
    const int begin = warp * 32, end = std::min(int(s.fibers.size()), begin + 32);
    order.resize(end - begin);
    for (int i = 0; i < end - begin; ++i) order[i] = s.seed < 4 && (s.seed & 1) ? end - 1 - i : begin + i;
    if (s.seed >= 4) std::shuffle(order.begin(), order.end(), random);
    bool any = false;
    for (int i : order) {
        if (s.fibers[i].state != State::kRunnable) continue;
        any = true;
        resume(s.fibers[i]);
    }
    return any;
}

// Releases the barrier if the whole block has come to it. Returns true when the block is finished.
inline bool settle(Simulator& s, bool progressed) {
    const int n = int(s.fibers.size());
    int returned = 0, waiting = 0;
    for (const Fiber& f : s.fibers) {
        returned += f.state == State::kReturned;
        waiting += f.state == State::kAtBarrier;
    }
    if (returned == n) return true;
    if (progressed && waiting + returned != n) return false;
    if (waiting + returned != n)
        throw std::runtime_error("deadlock: " + std::to_string(waiting) + " threads at __syncthreads, " +
                                 std::to_string(n - waiting - returned) + " in a warp collective, " +
                                 std::to_string(returned) + " returned");
    if (returned) throw std::runtime_error("__syncthreads after " + std::to_string(returned) + " threads returned");
    for (Fiber& f : s.fibers) {
        if (f.site != s.fibers[0].site)
            throw std::runtime_error("threads of one block meet at different __syncthreads");
        f.state = State::kRunnable;
    }
    ++s.statistics.barriers;
    return false;
}

inline void run_block(const std::function<void()>& body, std::mt19937_64& random) {
    Simulator& s = simulator();
    const int n = int(s.fibers.size());
    s.body = &body;
    s.error.clear();
    for (int i = 0; i < n; ++i) {
        if (int(s.stacks.size()) <= i)
            s.stacks.push_back(static_cast<char*>(aligned_alloc(64, Simulator::kStackBytes)));
        prepare(s.fibers[i], i, s.stacks[i], s.block);
    }
    for (auto& open : s.collectives) open.clear();
    if (s.shared_bytes) memset(s.shared, 0xFF, s.shared_bytes);
    std::vector<int> warps((n + 31) / 32), lanes;
    for (size_t w = 0; w < warps.size(); ++w) warps[w] = int(s.seed < 4 && (s.seed & 1) ? warps.size() - 1 - w : w);
    for (bool finished = false; !finished;) {
        bool any = false;
        if (s.seed >= 4) std::shuffle(warps.begin(), warps.end(), random);
        for (int w : warps) {
            uint64_t turns = s.seed < 2 ? 1 : s.seed < 4 ? ~uint64_t(0) : uint64_t(1) << random() % 12;
            while (turns-- && step_warp(s, w, lanes, random)) any = true;
        }
        finished = settle(s, any);
    }
    ++s.statistics.blocks;
}

inline uint64_t& default_seed() {
    static uint64_t seed = 0;
    return seed;
}
inline std::string& last_error() {
    static thread_local std::string text;
    return text;
}

// Runs a whole grid; what goes wrong in a thread becomes the launch's error and text.
inline cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
    Simulator& s = simulator();
    last_error().clear();
    s.grid = grid;
    s.block = block;
    s.seed = default_seed();
    s.fibers.assign(size_t(block.x) * block.y * block.z, Fiber{});
    s.collectives.assign((s.fibers.size() + 31) / 32, {});
    free(s.shared);
    s.shared = nullptr;
    s.shared_bytes = shared_bytes;
    if (shared_bytes && posix_memalign(reinterpret_cast<void**>(&s.shared), 128, shared_bytes))
        return cudaErrorMemoryAllocation;
    std::mt19937_64 random(s.seed);
    std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
    for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
    if (s.seed > 0) std::shuffle(order.begin(), order.end(), random);
    try {
        for (uint64_t b : order) {
            s.block_index = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
                             unsigned(b / (uint64_t(grid.x) * grid.y))};
            run_block(body, random);
        }
    } catch (std::exception& e) {
        last_error() = e.what();
        return cudaErrorLaunchFailure;
    }
    return cudaSuccess;
}

template <class T>
T* dynamic_shared() {
    return reinterpret_cast<T*>(simulator().shared);
}

}  // namespace cudasim

// ---- the names that kernels use ----

#define threadIdx (::cudasim::simulator().current->thread)
#define blockIdx (::cudasim::simulator().block_index)
#define blockDim (::cudasim::simulator().block)
#define gridDim (::cudasim::simulator().grid)

// The call site tells collectives and barriers apart, so these must not be inlined.
#define CUDASIM_NOINLINE __attribute__((noinline)) inline
#define CUDASIM_SITE __builtin_return_address(0)

CUDASIM_NOINLINE void cudasim_barrier() {
    ::cudasim::Fiber* me = ::cudasim::simulator().current;
    me->state = ::cudasim::State::kAtBarrier;
    me->site = CUDASIM_SITE;
    ::cudasim::yield_to_scheduler();
}
#define __syncthreads() cudasim_barrier()

CUDASIM_NOINLINE void __syncwarp(unsigned mask = 0xffffffffu) {
    ::cudasim::collective(mask, nullptr, CUDASIM_SITE, [](uint32_t, void**) {});
}
template <class T>
CUDASIM_NOINLINE T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
    return ::cudasim::shuffle(mask, value, ::cudasim::simulator().current->lane ^ lane_mask, CUDASIM_SITE);
}
template <class T>
CUDASIM_NOINLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
    const int lane = ::cudasim::simulator().current->lane, source = lane + int(delta);
    return ::cudasim::shuffle(mask, value, source < 32 ? source : lane, CUDASIM_SITE);
}
template <class T>
T __ldg(const T* p) {
    return *p;
}
template <class T>
void __stwb(T* p, T value) {
    *p = value;
}
using std::max;
using std::min;

inline const char* cudaGetErrorString(cudaError_t status) {
    if (status == cudaSuccess) return "no error";
    return status == cudaErrorLaunchFailure ? ::cudasim::last_error().c_str() : "invalid argument";
}

// ---- what the tests turn and read ----

#ifdef CUDASIM_IMPLEMENTATION
extern "C" void cudasim_set_seed(uint64_t seed) { cudasim::default_seed() = seed; }
extern "C" void cudasim_reset_statistics() { cudasim::simulator().statistics = {}; }
extern "C" void cudasim_read_statistics(cudasim::Statistics* out) { *out = cudasim::simulator().statistics; }
#endif
