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

/* Bytes of scratch memory that mrsi_fast_cuda_group_norm_silu needs, 0 if it runs as one kernel, -1 if refused. */
int64_t mrsi_fast_cuda_group_norm_silu_workspace(int dtype, int64_t samples, int64_t channels, int64_t pixels,
                                                 int64_t groups);

/* y = silu(group_norm(x + conv_bias + embedding) (1 + scale) + shift), x and y [samples, pixels, channels], y apart
 * from x; weight, bias, conv_bias [channels]; scale, shift, embedding [samples, channels]; all of `dtype` and 16-byte
 * aligned. scale, shift, conv_bias and embedding may be null. */
int mrsi_fast_cuda_group_norm_silu(int dtype, const void* x, const void* weight, const void* bias, const void* scale,
                                   const void* shift, const void* conv_bias, const void* embedding, void* y,
                                   void* workspace, int64_t samples, int64_t channels, int64_t pixels, int64_t groups,
                                   float eps, void* stream);

/* Bytes of scratch memory that mrsi_fast_cuda_self_attention needs, 0 if none, -1 if refused. */
int64_t mrsi_fast_cuda_self_attention_workspace(int dtype, int64_t samples, int64_t tokens, int64_t heads,
                                                int64_t head_size);

/* out [samples, tokens, heads, head_size] = softmax(scale q k') v with q, k, v packed in
 * qkv [samples, tokens, 3, heads, head_size]; float16 or bfloat16, 16-byte aligned, head_size 32 or 64. */
int mrsi_fast_cuda_self_attention(int dtype, const void* qkv, void* out, void* workspace, int64_t samples,
                                  int64_t tokens, int64_t heads, int64_t head_size, float scale, void* stream);

/* out = base_c base + P(now_c now + prev_c prev) + noise_c noise over float32 [slices, width, height], with
 * coefficients [steps, 4] and step [1] in device memory. P removes the band spanned by the orthonormal rows of
 * basis_x [rank_x, width] and basis_y [rank_y, height] from each slice, of it the modes whose kept [rank_x, rank_y] is 1
 * (null: all); both bases null: no projection. prev and noise may be null. 16-byte aligned; out apart from the inputs. */
int mrsi_fast_cuda_solver_step(const float* base, const float* now, const float* prev, const float* noise,
                               const float* coefficients, const int64_t* step, const float* basis_x,
                               const float* basis_y, const float* kept, float* out, int64_t slices, int64_t width,
                               int64_t height, int64_t rank_x, int64_t rank_y, void* stream);

#ifdef __cplusplus
}
#endif
#endif
