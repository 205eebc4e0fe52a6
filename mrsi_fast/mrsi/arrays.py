"""Any array that a user may hold as a plain NumPy array, or a sentence that says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrsi_fast.mrsi.mapset import MapInputError


def plain_array(values: Any, where: str) -> NDArray:
    """A NumPy array of the same values.

    Tensors of any device, layout and precision are taken, with gradients or without; masked voxels become NaN.

    Args:
        values: Array, masked array, tensor, or nested lists of numbers.
        where: What to call it in a message.

    Raises:
        MapInputError: It holds no values, or cannot be read as an array.
    """
    try:
        if isinstance(values, torch.Tensor):
            if values.is_meta:
                raise MapInputError(f"{where}: a tensor on the meta device holds no values. Give it with its data.")
            dense = values.detach().to_dense() if values.layout != torch.strided else values.detach()
            dense = dense.cpu().resolve_conj().resolve_neg()
            return (dense.float() if dense.dtype in (torch.bfloat16, torch.float16) else dense).numpy()
        if isinstance(values, np.ma.MaskedArray):
            hidden, data = np.ma.getmaskarray(values), np.asarray(values.data)
            return np.where(hidden, np.nan, data) if data.dtype.kind in "fiub" else data
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, MapInputError):
            raise
        raise MapInputError(
            f"{where}: a {type(values).__name__} cannot be read as an array ({str(error).splitlines()[0]}). Give a "
            "NumPy array or a tensor of real numbers."
        ) from error
