"""Every operation's schema, in one table; defined here so that the operations exist without any compiled code."""

from __future__ import annotations

from torch.library import Library

_GROUP_NORM_SILU = "Tensor x, Tensor weight, Tensor bias, int num_groups, Tensor? scale, Tensor? shift, float eps"

SCHEMAS = {
    "group_norm_silu": f"({_GROUP_NORM_SILU}) -> Tensor",
    "group_norm_silu_backward": f"(Tensor grad, {_GROUP_NORM_SILU}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "group_norm_silu_out": f"({_GROUP_NORM_SILU}, Tensor(a!) out) -> ()",
}

LIBRARY = Library("mrsi_fast", "DEF")
for _name, _schema in SCHEMAS.items():
    LIBRARY.define(_name + _schema)
