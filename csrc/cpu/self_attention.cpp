// Runs the attention of the native network engine on PyTorch tensors.
#include "mrsi_fast/self_attention.h"

#include "mrsi_fast/plan.h"

namespace mrsi_fast {

void self_attention(const Attention& request, int threads) {
    const NetworkKernels& kernels = MRSI_FAST_PICK(kNetworkKernels);
    const std::size_t scratch_floats = kernels.attention_scratch(&request);
    const int items = request.batch * request.heads;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
#endif
    {
        Block& scratch = thread_scratch(scratch_floats);
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (int item = 0; item < items; ++item) kernels.attention_item(&request, item, scratch.data());
    }
}

}  // namespace mrsi_fast
