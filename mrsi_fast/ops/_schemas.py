"""Every operation's schema, in one table; defined here so that the operations exist without any compiled code."""

from __future__ import annotations

from torch.library import Library

_GROUP_NORM_SILU = "Tensor x, Tensor weight, Tensor bias, int num_groups, Tensor? scale, Tensor? shift, float eps"
_FOLDED = "Tensor? conv_bias=None, Tensor? embedding=None"
_CONV3X3_GN_SILU = (
    "Tensor x, Tensor norm_weight, Tensor norm_bias, int num_groups, Tensor weight, Tensor? bias, Tensor? scale, "
    "Tensor? shift, Tensor? residual, float eps"
)
_EIGHT = ", ".join(["Tensor"] * 8)
_SOLVER_STEP = (
    "Tensor base, Tensor now, Tensor? prev, Tensor? noise, Tensor coefficients, Tensor step, Tensor? basis_x, "
    "Tensor? basis_y, Tensor? kept"
)

SCHEMAS = {
    "group_norm_silu": f"({_GROUP_NORM_SILU}) -> Tensor",
    "group_norm_silu_backward": f"(Tensor grad, {_GROUP_NORM_SILU}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "group_norm_silu_out": f"({_GROUP_NORM_SILU}, Tensor(a!) out, *, {_FOLDED}) -> ()",
    "conv3x3_gn_silu": f"({_CONV3X3_GN_SILU}) -> Tensor",
    "conv3x3_gn_silu_backward": f"(Tensor grad, {_CONV3X3_GN_SILU}) -> ({_EIGHT})",
    "conv3x3_gn_silu_out": f"({_CONV3X3_GN_SILU}, Tensor(a!) out) -> ()",
    "self_attention": "(Tensor qkv, float scale) -> Tensor",
    "self_attention_backward": "(Tensor grad, Tensor qkv, float scale) -> Tensor",
    "self_attention_out": "(Tensor qkv, float scale, Tensor(a!) out) -> ()",
    "solver_step": f"({_SOLVER_STEP}) -> Tensor",
    "solver_step_out": f"({_SOLVER_STEP}, Tensor(a!) out) -> ()",
}

LIBRARY = Library("mrsi_fast", "DEF")
for _name, _schema in SCHEMAS.items():
    LIBRARY.define(_name + _schema)
