// Weights and matrices in the order in which the register tiles read them.
#include "mrsi_fast/pack.h"

namespace mrsi_fast {

void pack_weights(const ConvKernels& kernels, const Filters& filters, float* packed, int threads) {
    const int panels = (filters.out_channels + kernels.panel - 1) / kernels.panel;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
#endif
    for (int panel = 0; panel < panels; ++panel) kernels.pack_panel(&filters, panel, packed);
}

size_t packed_matrix_size(int rows, int columns, int panel) {
    return (size_t)rows * ((columns + panel - 1) / panel * panel);
}

void pack_matrix(const float* matrix, int rows, int columns, int panel, float* packed) {
    const int panels = (columns + panel - 1) / panel;
    for (int p = 0; p < panels; ++p)
        for (int r = 0; r < rows; ++r)
            for (int lane = 0; lane < panel; ++lane) {
                const int column = p * panel + lane;
                packed[((size_t)p * rows + r) * panel + lane] =
                    column < columns ? matrix[(size_t)r * columns + column] : 0.0f;
            }
}

}  // namespace mrsi_fast
