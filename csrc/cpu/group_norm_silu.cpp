// Chooses the instruction set and holds the scratch memory of group_norm_silu.
#include "mrsi_fast/group_norm_silu.h"

#include <algorithm>
#include <memory>

#include "mrsi_fast/isa.h"

namespace mrsi_fast {

MRSI_FAST_PER_ISA(std::int64_t group_norm_silu_scratch(const GroupNormSilu& op);
                  void group_norm_silu_forward(const GroupNormSilu& op, double* scratch, float* out);
                  void group_norm_silu_backward(const GroupNormSilu& op, double* scratch,
                                                const GroupNormSiluGradients& grad);)

namespace {

// Below this many values waking another thread costs more than it saves.
constexpr std::int64_t kValuesPerThread = 16384;

GroupNormSilu with_useful_threads(GroupNormSilu op) {
    const std::int64_t values = op.batch * op.channels * op.spatial;
    op.threads = static_cast<int>(std::clamp<std::int64_t>(values / kValuesPerThread, 1, std::max(op.threads, 1)));
    return op;
}

}  // namespace

void group_norm_silu(const GroupNormSilu& request, float* out) {
    const GroupNormSilu op = with_useful_threads(request);
    const std::unique_ptr<double[]> scratch(new double[MRSI_FAST_PICK(group_norm_silu_scratch)(op)]);
    MRSI_FAST_PICK(group_norm_silu_forward)(op, scratch.get(), out);
}

void group_norm_silu_backward(const GroupNormSilu& request, const GroupNormSiluGradients& grad) {
    const GroupNormSilu op = with_useful_threads(request);
    const std::unique_ptr<double[]> scratch(new double[MRSI_FAST_PICK(group_norm_silu_scratch)(op)]);
    MRSI_FAST_PICK(group_norm_silu_backward)(op, scratch.get(), grad);
}

}  // namespace mrsi_fast
