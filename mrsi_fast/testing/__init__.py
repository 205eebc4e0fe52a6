"""Helpers that tests and benchmarks share: data folder, comparison rules, named shapes. Nothing in the library imports it."""
