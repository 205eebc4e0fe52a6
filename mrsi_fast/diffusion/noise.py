"""Normal noise keyed by (seed, slice, sample, step): the same numbers in any batch, order, file name or device.

Counter-based generator Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), as in
numpy. The key is (seed, slice key), the upper half of the counter (step, sample), and the lower half counts blocks of
four words within one field; each number fills a 64-bit word of its own. So two different keys never share a word of the
generator's input: there are no collisions to bound. A slice key is the hash of what was measured and of the slice's
index (`slice_key`), 63 bits long: two of a million slices share one with probability 5e-8.

Words become normals through the inverse normal distribution function, one word each, rather than through numpy's own
normal sampler, whose algorithm may change between versions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

KEY_LIMIT = 2**63  # seeds, slice keys, samples and steps are 0 .. 2^63 - 1: what fits a signed 64-bit integer


def philox_normal(seed: int, slice_key: int, sample: int, step: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise of one slice, one sample, one step.

    Convention of the package: step 0 is the initial state, step `i + 1` is what solver step `i` adds.

    Args:
        seed: The user's seed.
        slice_key: Which slice; the caller's choice, such as the slice index within the volume.
        sample: Which of the posterior samples of this slice.
        step: Which step of the run.
        shape: Shape of the field. Fields of the same key and another shape share their leading numbers.

    Returns:
        float32 tensor of that shape on the CPU, contiguous; values within +-8.3.

    Raises:
        ValueError: If seed, slice key, sample or step is not an integer from 0 to 2^63 - 1.
    """
    for name, value in (("seed", seed), ("slice key", slice_key), ("sample", sample), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < KEY_LIMIT:
            raise ValueError(f"The {name} of the noise must be an integer from 0 to 2^63 - 1, but got {value!r}.")
    generator = np.random.Philox(
        key=np.array([seed, slice_key], dtype=np.uint64), counter=np.array([0, 0, step, sample], dtype=np.uint64)
    )
    words = generator.random_raw(math.prod(shape))
    # The upper 52 bits, centred in their cell: exact in float64 and never 0 or 1, so the normal is finite.
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return torch.special.ndtri(torch.from_numpy(uniform)).to(torch.float32).reshape(tuple(shape))


def slice_key(content: bytes, index: int) -> int:
    """Key of one slice's noise: the first 63 bits of BLAKE2b over the content's key and the slice's index.

    Args:
        content: Key of the set of maps, any length; nothing for none, which is a key of its own.
        index: Of the slice within the volume.
    """
    digest = hashlib.blake2b(content + index.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def batch_normal(seed: int, rows: Sequence[tuple[int, int]], step: int, shape: Sequence[int]) -> Tensor:
    """Noise of a batch: row b is `philox_normal(seed, *rows[b], step, shape)`, whatever its neighbours are.

    Args:
        seed: The user's seed.
        rows: (slice key, sample) of each row, B of them; at least one.
        step: Which step of the run.
        shape: Shape of one row.

    Returns:
        float32 tensor [B, *shape] on the CPU.

    Raises:
        ValueError: As `philox_normal`, or if there are no rows.
    """
    if not rows:
        raise ValueError("batch_normal got no rows; give the (slice key, sample) of at least one.")
    return torch.stack([philox_normal(seed, slice_key, sample, step, shape) for slice_key, sample in rows])
