// The simulator library of the tests: every .cu file of the project in one g++ translation unit, plus the switches that
// the tests turn. Built by tests/cudasim/conftest.py.
#define CUDASIM_IMPLEMENTATION
#include "cudasim.h"

#include "cuda/group_norm_silu.cu"
#include "cuda/runtime.cu"

extern "C" void cudasim_set_seed(uint64_t seed) { cudasim::default_seed() = seed; }
extern "C" void cudasim_reset_statistics() { cudasim::simulator().statistics = {}; }
extern "C" void cudasim_read_statistics(cudasim::Statistics* out) { *out = cudasim::simulator().statistics; }
