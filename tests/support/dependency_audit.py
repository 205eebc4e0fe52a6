"""What can be known about installed dependencies without a network: ``make audit``.

Walks the dependencies of the installed package: each is there in a version that its dependants accept, and its files
are those that its wheel recorded (sha256). Prints ``name==version`` lines, which ``pip-audit --no-deps -r FILE`` takes
on a machine with a network: known vulnerabilities are not looked up here. Ends with 1 on a finding.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str, seen: dict[str, Distribution], problems: list[str]) -> None:
    """Fills ``seen`` with a distribution and what it depends on, without extras."""
    found = seen[canonicalize_name(name)] = distribution(name)
    for line in found.requires or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = distribution(wanted.name).version
        except PackageNotFoundError:
            problems.append(f"{name} needs {wanted}, which is not installed")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            problems.append(f"{name} needs {wanted}, installed is {version}")
        if canonicalize_name(wanted.name) not in seen:
            needed(wanted.name, seen, problems)


def changed_files(one: Distribution) -> list[str]:
    """Files that are missing or differ from the sha256 in the distribution's RECORD."""
    changed = []
    for file in one.files or ():
        if file.hash is None or file.hash.mode != "sha256":
            continue
        try:
            with open(file.locate(), "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
        except OSError:
            changed.append(str(file))
            continue
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            changed.append(str(file))
    return changed


def main() -> int:
    seen: dict[str, Distribution] = {}
    problems: list[str] = []
    needed("mrsi_fast", seen, problems)
    for name, one in sorted(seen.items()):
        if name != "mrsi-fast":  # in a working copy its files are those being worked on
            print(f"{name}=={one.version}")
            problems += [f"{name}: {file} is not as its wheel recorded it" for file in changed_files(one)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
