// Weights and matrices in the order in which the register tiles read them; Winograd weights transformed in float64.
#include "mrsi_fast/pack.h"

#include "mrsi_fast/network.h"

namespace mrsi_fast {
namespace {

// G of F(4x4,3x3) and F(2x2,3x3), Lavin & Gray 2016.
const double kFour[6][3] = {{1.0 / 4, 0, 0},
                            {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                            {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                            {1.0 / 24, 1.0 / 12, 1.0 / 6},
                            {1.0 / 24, -1.0 / 12, 1.0 / 6},
                            {0, 0, 1}};
const double kTwo[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

int planes_of(Method method, int kernel) { return method == kDirect ? kernel * kernel : (method + 2) * (method + 2); }

constexpr int kMostLanes = 32;

// G g G' of one 3x3 filter per lane: filter [9][lanes] -> transformed [(method + 2)^2][lanes]. Lanes are innermost, so
// that the compiler makes vectors of them.
void transform_filters(Method method, const double (*filter)[kMostLanes], double (*transformed)[kMostLanes]) {
    const double (*matrix)[3] = method == kWinograd4 ? kFour : kTwo;
    const int a = method + 2;
    for (int i = 0; i < a; ++i) {
        double half[3][kMostLanes];
        for (int x = 0; x < 3; ++x)
            for (int lane = 0; lane < kMostLanes; ++lane)
                half[x][lane] = matrix[i][0] * filter[x][lane] + matrix[i][1] * filter[3 + x][lane] +
                                matrix[i][2] * filter[6 + x][lane];
        for (int j = 0; j < a; ++j)
            for (int lane = 0; lane < kMostLanes; ++lane)
                transformed[i * a + j][lane] =
                    half[0][lane] * matrix[j][0] + half[1][lane] * matrix[j][1] + half[2][lane] * matrix[j][2];
    }
}

}  // namespace

size_t packed_size(Method method, int kernel, int in_channels, int out_channels, int panel) {
    const size_t panels = (out_channels + panel - 1) / panel;
    return panels * panel * planes_of(method, kernel) * in_channels;
}

void pack_weights(const float* weight, Method method, int kernel, int in_channels, int out_channels, int panel,
                  float* packed) {
    const int panels = (out_channels + panel - 1) / panel, taps = kernel * kernel, planes = planes_of(method, kernel);
    // Winograd multiplies plane by plane; the direct method runs through all taps of a panel.
    const size_t plane_step = (size_t)in_channels * panel * (method == kDirect ? 1 : panels);
    const size_t panel_step = (size_t)in_channels * panel * (method == kDirect ? planes : 1);
    for (int p = 0; p < panels; ++p)
        for (int c = 0; c < in_channels; ++c) {
            double filter[9][kMostLanes] = {}, transformed[36][kMostLanes];
            for (int lane = 0; lane < panel && p * panel + lane < out_channels; ++lane)
                for (int t = 0; t < taps; ++t)
                    filter[t][lane] = weight[((size_t)(p * panel + lane) * in_channels + c) * taps + t];
            if (method != kDirect) transform_filters(method, filter, transformed);
            const double (*values)[kMostLanes] = method == kDirect ? filter : transformed;
            float* to = packed + p * panel_step + (size_t)c * panel;
            for (int plane = 0; plane < planes; ++plane)
                for (int lane = 0; lane < panel; ++lane) to[plane * plane_step + lane] = (float)values[plane][lane];
        }
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
