"""Renew the copy of NiiVue that reports embed: ``python tools/renew_niivue.py 0.69.0``; then run the browser tests.

NiiVue is vendored so that a report needs no network and a result can be looked at in ten years. The package is fetched
with ``npm pack``, which checks its integrity; the bundle is stored compressed, with no time stamp, so that the same
version gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "mrsi_fast" / "report" / "vendor"
BUNDLE = "package/dist/niivue.umd.js"
LICENCE = "BSD-2-Clause"


def fetch(version: str, folder: Path) -> Path:
    """Download the package with npm and return the archive."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"@niivue/niivue@{version}"]
    return folder / subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def renew(version: str) -> None:
    """Replace the vendored bundle and its description.

    Raises:
        SystemExit: The licence of the package changed, so its text here would be wrong.
    """
    with tempfile.TemporaryDirectory() as name, tarfile.open(fetch(version, Path(name))) as archive:
        files = {path: archive.extractfile(path) for path in (BUNDLE, "package/package.json")}
        code, package = (file.read() for file in files.values() if file is not None)
    facts = json.loads(package)
    if facts["license"] != LICENCE:
        raise SystemExit(f"NiiVue {version} is under {facts['license']}, not {LICENCE}: read it before vendoring.")
    (VENDOR / "niivue.js.gz").write_bytes(gzip.compress(code, compresslevel=9, mtime=0))
    record = {
        "name": facts["name"],
        "version": facts["version"],
        "licence": LICENCE,
        "file": BUNDLE.removeprefix("package/"),
        "sha256": hashlib.sha256(code).hexdigest(),
    }
    (VENDOR / "niivue.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"NiiVue {facts['version']}: {len(code)} bytes, sha256 {record['sha256']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Renew the vendored NiiVue bundle.")
    parser.add_argument("version", help="version on npm, e.g. 0.69.0")
    renew(parser.parse_args().version)
