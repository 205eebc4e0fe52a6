// Runs the attention of the native network engine on PyTorch tensors.
#include "mrsi_fast/self_attention.h"

#include <atomic>
#include <new>

#include "mrsi_fast/memory.h"

namespace mrsi_fast {

void self_attention(const Attention& request, int threads) {
    if (request.batch == 0 || request.tokens == 0) return;  // the scratch of no tokens has no size
    const NetworkKernels& kernels = MRSI_FAST_PICK(kNetworkKernels);
    const std::size_t scratch_floats = kernels.attention_scratch(&request);
    const int items = request.batch * request.heads;
    std::atomic<bool> lacking{false};
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
#endif
    {
        float* scratch = thread_scratch(scratch_floats);
        if (!scratch) lacking = true;
#ifdef _OPENMP
#pragma omp barrier
#endif
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (int item = 0; item < items; ++item)
            if (!lacking) kernels.attention_item(&request, item, scratch);
    }
    if (lacking) throw std::bad_alloc();
}

}  // namespace mrsi_fast
