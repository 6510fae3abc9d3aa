"""How long does --help take, beside a bare Python?"""

from __future__ import annotations

import subprocess
import sys

from common import median_of, row


def main() -> None:
    run = lambda *args: subprocess.run([sys.executable, *args], capture_output=True, check=True)
    bare, _ = median_of(lambda: run("-c", "pass"), 7)
    for args in (["--help"], ["train", "t2i-s-64", "--help"], ["learn", "--help"], ["generate", "--help"]):
        seconds, spread = median_of(lambda args=args: run("-m", "tessera", *args), 7)
        row("startup", what=" ".join(args), seconds=seconds, spread=spread, ratio_to_bare_python=seconds / bare)


if __name__ == "__main__":
    main()
