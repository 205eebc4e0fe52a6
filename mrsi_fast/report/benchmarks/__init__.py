"""Recorded benchmarks: what a run writes, how two are compared, and the table and plots that are made of them."""
