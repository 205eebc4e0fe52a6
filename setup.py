"""Packages and the compiled extension; everything else stands in pyproject.toml, the compiling in csrc/build.py."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent


def load_build() -> ModuleType:
    """Import csrc/build.py, which is no package."""
    spec = importlib.util.spec_from_file_location("mrsi_fast_csrc_build", ROOT / "csrc" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


csrc_build = load_build()


class BuildExtension(build_ext):
    """Hands the one extension to csrc/build.py, then copies it into the checkout.

    The checkout shadows an installed package in ``python -m pytest`` and the like; with the copy both have the kernels.
    """

    def build_extension(self, ext: Extension) -> None:
        """Compile; a failure leaves an optional extension out and stops the build of a required one."""
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        try:
            csrc_build.build(target, Path(self.build_temp).resolve() / "csrc")
        except csrc_build.BuildError as error:
            raise CompileError(f"mrsi_fast: {error}") from None
        checkout = ROOT / "mrsi_fast"
        if target.parent == checkout:
            return
        try:
            csrc_build.replace(target, checkout / target.name)
            shutil.copyfile(target.parent / "_build_info.json", checkout / "_build_info.json")
        except OSError as error:
            print(f"mrsi_fast: the extension was not copied into the checkout: {error}.", file=sys.stderr)


def extensions() -> list[Extension]:
    """The extension where it can be built; none, with one line why, where it cannot."""
    try:
        native = csrc_build.native_part()
        required = csrc_build.switch("MRSI_FAST_NATIVE") == "1" or csrc_build.switch("MRSI_FAST_CUDA") == "1"
    except csrc_build.BuildError as error:
        raise SystemExit(f"mrsi_fast: {error}") from None
    if native.built:
        return [Extension("mrsi_fast._C", sources=[], optional=not required)]
    if any(command.startswith(("bdist", "build", "editable", "install")) for command in sys.argv[1:]):
        print(f"mrsi_fast: native kernels are left out: {native.reason}.", file=sys.stderr)
    return []


setup(
    # kernels/ is mapped by hand: the symlink mrsi_fast/kernels, which tools follow, may be lost in a copy.
    packages=sorted({*find_packages(include=["mrsi_fast", "mrsi_fast.*"]), "mrsi_fast.kernels"}),
    package_dir={"mrsi_fast": "mrsi_fast", "mrsi_fast.kernels": "kernels"},
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension},
)
