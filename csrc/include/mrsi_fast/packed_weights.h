// Weights of one network as its kernels read them, packed once and shared by the plans of several batch shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "mrsi_fast/memory.h"
#include "mrsi_fast/network.h"

namespace mrsi_fast {

// Packed weights of one network, for plans of several batch shapes.
class PackedWeights {
  public:
    // Packs on the first call for this key, method and panel; later calls have to be for filters of the same shape.
    const float* get(std::int64_t key, const Filters& filters, const ConvKernels& kernels, int threads);
    std::size_t floats() const { return used_; }

  private:
    struct Packed {
        const float* data = nullptr;
        int kernel = 0, in_channels = 0, out_channels = 0;
    };
    std::map<std::tuple<std::int64_t, int, int>, Packed> packed_;
    std::vector<Block> slabs_;  // many weights in one, so that huge pages waste little
    std::size_t left_ = 0, used_ = 0;
};

}  // namespace mrsi_fast
