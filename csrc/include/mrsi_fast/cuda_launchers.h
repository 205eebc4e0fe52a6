/* The C boundary of the CUDA kernels: raw device pointers, sizes and a stream handle; no torch and no CUDA headers.
 * Every launcher returns 0 or a cudaError_t. Shapes that a launcher does not support are refused with
 * cudaErrorInvalidValue (1) before anything is launched. All tensors are dense unless strides are given. */
#ifndef MRSI_FAST_CUDA_LAUNCHERS_H
#define MRSI_FAST_CUDA_LAUNCHERS_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MRSI_FAST_FLOAT32 = 0, MRSI_FAST_FLOAT16 = 1, MRSI_FAST_BFLOAT16 = 2 };

/* Text of a status that a launcher returned. */
const char* mrsi_fast_cuda_error_string(int status);

/* Kernels that this thread has launched so far. */
int64_t mrsi_fast_cuda_launch_count(void);

/* y = silu(group_norm(x + conv_bias + embedding) (1 + scale) + shift), x and y [samples, pixels, channels], y apart
 * from x; weight, bias, conv_bias [channels]; scale, shift, embedding [samples, channels]; all of `dtype` and 16-byte
 * aligned. scale, shift, conv_bias and embedding may be null. */
typedef struct MrsiFastCudaGroupNormSilu {
    int dtype;
    float eps;
    const void *x, *weight, *bias, *scale, *shift, *conv_bias, *embedding;
    void *y, *workspace;
    int64_t samples, channels, pixels, groups;
} MrsiFastCudaGroupNormSilu;

/* Bytes of scratch memory that it needs, by type and sizes; 0 if it runs as one kernel, -1 if refused. */
int64_t mrsi_fast_cuda_group_norm_silu_workspace(const MrsiFastCudaGroupNormSilu* request);
int mrsi_fast_cuda_group_norm_silu(const MrsiFastCudaGroupNormSilu* request, void* stream);

/* out = base_c base + P(now_c now + prev_c prev) + noise_c noise over float32 [slices, width, height], with
 * coefficients [steps, 4] and step [1] in device memory. P removes the band spanned by the orthonormal rows of
 * basis_x [rank_x, width] and basis_y [rank_y, height] from each slice, of it the modes whose kept [rank_x, rank_y] is 1
 * (null: all); both bases null: no projection. prev and noise may be null. 16-byte aligned; out apart from the inputs. */
typedef struct MrsiFastCudaSolverStep {
    const float *base, *now, *prev, *noise, *coefficients;
    const int64_t* step;
    const float *basis_x, *basis_y, *kept;
    float* out;
    int64_t slices, width, height, rank_x, rank_y;
} MrsiFastCudaSolverStep;

int mrsi_fast_cuda_solver_step(const MrsiFastCudaSolverStep* request, void* stream);

#ifdef __cplusplus
}
#endif
#endif
