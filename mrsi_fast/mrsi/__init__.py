"""MRSI physics and data: acquisition operator, data consistency, scaling, ratios, trust masks, NIfTI in and out.

Import what you need from the submodules (``mrsi_fast.mrsi.forward`` ...): this file stays free of heavy imports.
"""
