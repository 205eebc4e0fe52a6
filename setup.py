"""Packages and the compiled extension; everything else stands in pyproject.toml."""

from setuptools import setup

PACKAGES = ["mrsi_fast", "mrsi_fast.kernels", "mrsi_fast.ops", "mrsi_fast.ops.reference", "mrsi_fast.testing"]

setup(packages=PACKAGES, package_dir={"mrsi_fast": "mrsi_fast", "mrsi_fast.kernels": "kernels"})
