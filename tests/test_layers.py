"""Each part of the house imports only parts to its left."""

import ast
import subprocess
import sys
from pathlib import Path

import tessera

ROOT = Path(tessera.__file__).parent
ORDER = ["errors", "files", "settings", "checkpoint", "config", "presets", "machine", "nn", "models", "plan", "tokens", "data", "state", "store", "generate", "train",
         "evaluate", "preview", "learn", "demonstration", "imports", "compat", "cli", "__main__"]  # fmt: skip
STRANGERS = {("train", "generate"), ("generate", "train")}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tessera"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found - {"__version__"}


def test_imports_point_left():
    wrong = []
    for file in sorted(ROOT.rglob("*.py")):
        part = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for other in imports(file):
            if ORDER.index(other) > ORDER.index(part) or (part, other) in STRANGERS:
                wrong.append(f"{file.relative_to(ROOT)} imports {other}")
    assert not wrong


def test_only_the_command_line_knows_tyro():
    users = [f.relative_to(ROOT).as_posix() for f in ROOT.rglob("*.py") if "import tyro" in f.read_text()]
    assert users == ["cli/arguments.py"]


def test_importing_tessera_and_asking_for_help_load_no_torch():
    code = "import sys, tessera, tessera.cli; tessera.cli.main(['--help']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "False"


def code_lines(file: Path) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    import io
    import tokenize

    lines: set[int] = set()
    strings = {
        n.value.lineno: n.value.end_lineno
        for n in ast.walk(ast.parse(file.read_text()))
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    }
    silent = {line for start, end in strings.items() for line in range(start, end + 1)}
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type not in quiet:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - silent)


def test_the_core_is_read_in_one_sitting():
    core = [
        "config.py",
        "nn",
        "models/text_to_image.py",
        "generate/sample.py",
        "train/engine.py",
        "train/loop.py",
    ]
    files = [
        f for name in core for f in ([ROOT / name] if name.endswith(".py") else sorted((ROOT / name).glob("*.py")))
    ]
    assert sum(map(code_lines, files)) < 1500
