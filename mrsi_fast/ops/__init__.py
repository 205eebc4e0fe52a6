"""The one door to every kernel: public functions that models and engines call."""

from __future__ import annotations

from mrsi_fast.ops.reference.group_norm_silu import group_norm_silu

__all__ = ["group_norm_silu"]
