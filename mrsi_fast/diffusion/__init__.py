"""Diffusion mathematics: a denoiser, its training loss, noise schedules, solvers and reproducible noise.

Nothing here depends on metabolites, acquisition or networks: the denoiser wraps any callable, conditions are passed
through unseen, and data consistency is something that a caller wraps around the denoiser. The pieces:

- `denoiser`: EDM preconditioning, `D(x, sigma, cond) -> x0`;
- `losses`: the noise levels and the weighted error of training;
- `schedules`: decreasing lists of sigma (Karras; linear and cosine VP tables);
- `solvers`: every sampler as a list of precomputed linear steps, and the loop that runs them;
- `noise`: normal noise keyed by (seed, slice, sample, step).
"""
