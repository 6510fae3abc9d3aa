"""What constraints.txt holds: the version of each package installed here that Tessera wants, and who wants it.

make pins                       # writes it; first upgrade what should be newer in .venv, and run the tests
python .ci/pins.py dev docs ray # prints it for these extras
"""

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = """# The versions that were tested together. make installs with these; pyproject.toml states the ranges.
# Written by `make pins`: behind each pin stands who wants it.
"""
OURS = "tessera-t2i"
FOR_ALL = {"pip", "setuptools"}
"""What every environment has, in its own version."""


def wanted(package: Distribution, extras: Sequence[str]) -> Iterator[Requirement]:
    """What a package with these extras requires on this machine."""
    for line in package.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            yield requirement


def pins(extras: Sequence[str]) -> dict[str, tuple[str, set[str]]]:
    """By name: the installed version, and the packages that want it."""
    found: dict[str, tuple[str, set[str]]] = {}
    done, ahead = set(), [(OURS, tuple(extras))]
    while ahead:
        name, asked = node = ahead.pop()
        if node in done:
            continue
        done.add(node)
        for requirement in wanted(distribution(name), asked):
            other = canonicalize_name(requirement.name)
            try:
                version = distribution(other).version.partition("+")[0]
            except PackageNotFoundError:
                sys.exit(f"{name} wants {requirement}, which is not installed here.")
            ahead.append((other, tuple(sorted(requirement.extras))))
            if other not in {OURS, *FOR_ALL}:
                found.setdefault(other, (version, set()))[1].add(name)
    return found


def main() -> None:
    found = pins(sys.argv[1:] or ("dev",))
    lines = (f"{name}=={version}  # {', '.join(sorted(by))}" for name, (version, by) in sorted(found.items()))
    print(HEAD + "\n".join(lines))


if __name__ == "__main__":
    main()
