"""The one door to every kernel: public functions that models and engines call.

``explain(op, *inputs)`` names the implementation of a call and the reasons against the others; ``status()``
lists the usable ones.
"""

from __future__ import annotations

from mrsi_fast.ops._dispatch import explain, override, status
from mrsi_fast.ops.conv3x3_gn_silu import conv3x3_gn_silu
from mrsi_fast.ops.group_norm_silu import group_norm_silu
from mrsi_fast.ops.self_attention import self_attention
from mrsi_fast.ops.solver_step import solver_step

__all__ = ["conv3x3_gn_silu", "explain", "group_norm_silu", "override", "self_attention", "solver_step", "status"]
