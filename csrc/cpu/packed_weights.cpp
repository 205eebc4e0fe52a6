// Packs weights when they are first asked for, many of them into one slab of memory.
#include "mrsi_fast/packed_weights.h"

#include <algorithm>
#include <string>

#include "mrsi_fast/checks.h"
#include "mrsi_fast/pack.h"

namespace mrsi_fast {
namespace {

constexpr std::size_t kLine = 16;       // floats in a cache line
constexpr std::size_t kSlab = 2 << 20;  // floats: 8 MiB

}  // namespace

const float* PackedWeights::get(std::int64_t key, const Filters& filters, const ConvKernels& kernels, int threads) {
    Packed& packed = packed_[{key, filters.method, kernels.panel}];
    if (packed.data) {
        require(packed.kernel == filters.kernel && packed.in_channels == filters.in_channels &&
                    packed.out_channels == filters.out_channels,
                "the weights of key " + std::to_string(key) + " have another shape.");
        return packed.data;
    }
    const std::size_t floats = kernels.packed_size(&filters), taken = (floats + kLine - 1) / kLine * kLine;
    if (left_ < taken) {
        slabs_.emplace_back(std::max(kSlab, taken));
        left_ = slabs_.back().size();
    }
    float* to = slabs_.back().data() + slabs_.back().size() - left_;
    pack_weights(kernels, filters, to, threads);
    left_ -= taken, used_ += floats;
    packed = {to, filters.kernel, filters.in_channels, filters.out_channels};
    return to;
}

}  // namespace mrsi_fast
