"""The plan of the house, held by machines: who may import whom, and how long the core is."""

import ast
import importlib
import io
import operator
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import tessera

ROOT = Path(tessera.__file__).parent


def test_the_contracts_of_the_house_hold():
    """Imports point down, train and generate never meet, no part's files import each other in a circle."""
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT.parents[1] / "pyproject.toml")) == 0


def test_only_the_command_line_knows_tyro():
    users = [f.relative_to(ROOT).as_posix() for f in ROOT.rglob("*.py") if "import tyro" in f.read_text()]
    assert users == ["cli/arguments.py"]


def test_importing_tessera_and_asking_for_help_load_no_torch():
    code = "import sys, tessera, tessera.cli; tessera.cli.main(['--help']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "False"


def code_lines(file: Path) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    lines: set[int] = set()
    strings = {
        n.value.lineno: n.value.end_lineno
        for n in ast.walk(ast.parse(file.read_text()))
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    }
    silent = {line for start, end in strings.items() for line in range(start, (end or start) + 1)}
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type not in quiet:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - silent)


CORE = (
    "config/ranges.py", "config/network.py", "config/transformer.py", "config/text_to_image.py", "config/quantizers.py",
    "config/training.py", "config/drawing.py", "nn", "models/text_to_image.py",
    "generate/decoder.py", "generate/guidance.py", "generate/ahead.py", "generate/choose.py", "generate/raster.py",
    "generate/prompts.py", "generate/pipeline.py", "store/run.py", "store/position.py",
    "train/engines/protocol.py", "train/engines/single.py", "train/objectives/protocol.py", "train/objectives/raster.py",
    "train/loop.py",
)  # fmt: skip
"""What a number passes through from config to code: config, nn, prior, decoder, pipeline, store, engine protocol,
objectives, loop. The settings of a part count where the code of that part counts."""


def core() -> list[Path]:
    return [
        f for name in CORE for f in ([ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py")))
    ]


def test_the_core_is_read_in_one_sitting():
    assert sum(map(code_lines, core())) < 2000


LONG_FUNCTIONS: set[str] = set()
LONG_FILES: set[str] = set()
"""What may be longer than 40 and 300 lines, until it is cut."""


def modules() -> dict[str, ast.Module]:
    return {f.relative_to(ROOT).as_posix(): ast.parse(f.read_text()) for f in sorted(ROOT.rglob("*.py"))}


def test_functions_and_files_are_short():
    functions = {
        f"{file} {node.name}"
        for file, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= 40
    }
    assert functions <= LONG_FUNCTIONS
    files = {f.relative_to(ROOT).as_posix() for f in ROOT.rglob("*.py") if len(f.read_text().splitlines()) > 300}
    assert files <= LONG_FILES


ANYS = 193
"""How often a type is `Any` in all of src. It may only fall: who takes some away lowers the number."""


def test_any_only_falls():
    found = [n for tree in modules().values() for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "Any"]
    assert len(found) <= ANYS, "say what it is: object where anything may come, a Protocol where something is called"


def test_undefined_names_are_found():
    """Shapes of jaxtyping are strings that look like names to a checker; names are checked all the same."""
    code = "def f(x: Float[Tensor, 'B N'], y: Float[Tensor, ' B']) -> None:\n    undefined\n"
    code = "from jaxtyping import Float\nfrom torch import Tensor\n\n\n" + code
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename", str(ROOT / "x.py"), "-"]  # fmt: skip
    out = subprocess.run(command, input=code, capture_output=True, text=True, cwd=ROOT.parents[1]).stdout
    assert "F821 Undefined name `undefined`" in out
    assert out.count("F821") == 1


def test_the_journeys_of_the_design_name_what_is_there():
    """Two tables of at most 14 stops; no room is entered twice."""
    page = (ROOT.parents[1] / "docs/design.md").read_text("utf-8").split("## Two journeys")[1].split("\n## ")[0]
    journeys = [re.findall(r"^\| \d+ \| `([\w.]+)` \|", part, re.MULTILINE) for part in page.split("\n**")[1:]]
    assert len(journeys) == 2
    for stops in journeys:
        assert 10 <= len(stops) <= 14
        rooms = [stop.split(".")[0] for stop in stops]
        assert len([a for a, b in zip(rooms, [*rooms[1:], ""], strict=True) if a != b]) == len(set(rooms))
        for stop in stops:
            room, module, *names = stop.split(".")
            operator.attrgetter(".".join(names))(importlib.import_module(f"tessera.{room}.{module}"))
