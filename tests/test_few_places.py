"""The few places that can execute, unpickle, start a process, or delete: each stands in a list here, with its reason.

The whole source is walked. What is not in the list fails, and so does a line of the list that no longer stands anywhere:
strike it out.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tessera

ROOT = Path(tessera.__file__).parent

RUN = {
    "files/download.py run_programs: subprocess.DEVNULL": "an empty input for the first of them",
    "files/download.py run_programs: subprocess.PIPE": "between them",
    "files/download.py run_programs: subprocess.Popen": "what the user typed as pipe:",
    "machine/device.py _glibc: ctypes.CDLL": "this process's own C library, for mallopt",
    "imports/deepspeed_folder.py _tool: get_fp32_state_dict_from_zero_checkpoint": "unpickles files that were vetted",
    "imports/reader.py read: torch.load": "weights_only: tensors, plain values, hollow objects",
    "machine/launch.py die_with_the_parent: ctypes.CDLL": "this process's own C library, for prctl",
    "machine/paths.py _mallopt: ctypes.CDLL": "whether it has mallopt",
    "machine/paths.py _prctl: ctypes.CDLL": "whether it has prctl",
    "studio/processes.py Processes: subprocess.DEVNULL": "an empty input",
    "studio/processes.py Processes: subprocess.Popen": "this program's own learn and evaluate, by a list of words",
    "studio/processes.py Processes: subprocess.STDOUT": "into its log",
    "studio/processes.py asked: asyncio.create_subprocess_exec": "this program's own show and data, by a list of words",
    "studio/processes.py asked: subprocess.DEVNULL": "an empty input",
    "studio/processes.py asked: subprocess.PIPE": "its answer",
    "train/sharded.py Description: pickle.Unpickler": "every name must stand in a list",
    "train/sharded.py _whole: torch.load": "weights_only: tensors",
}
"""What can run something that was read."""

DELETE = {
    "files/download.py download: .replace": "its own .part beside the target, which outlives a process to go on with",
    "files/download.py download: .unlink": "the same, where its sum is another",
    "files/atomic.py whole: .replace": "the one way in which a file gets its name",
    "files/claim.py Lock: .truncate": "the lock's own text",
    "files/own.py remove: .unlink": "names of our own in folders of our own",
    "files/own.py remove: shutil.rmtree": "the same",
    "store/folder.py RunFolder: .rename": "a checkpoint gets its name when it is whole",
}
"""What can remove or replace what is on the disk."""

EXECUTES = (
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.fork",
    "pty.", "subprocess.", "asyncio.create_subprocess", "runpy.", "code.interact", "code.Interactive", "ctypes.", "imp.", "webbrowser.",
    "importlib.reload", "importlib.util.spec_from_file_location", "importlib.machinery.", "torch.ops.load_library",
    "torch.classes.load_library", "torch.hub.", "torch.utils.cpp_extension.", "torch.jit.load", "torch.package.",
    "pickle.", "_pickle.", "cPickle.", "dill.", "joblib.", "cloudpickle.", "marshal.", "shelve.", "pandas.read_pickle",
    "torch.load", "torch.serialization.load", "torch.distributed.checkpoint.load", "torch.distributed.checkpoint.FileSystem",
    "torch.distributed.checkpoint.filesystem.", "torch.distributed.checkpoint.format_utils.",
    "torch.distributed.broadcast_object", "torch.distributed.all_gather_object", "torch.distributed.gather_object",
    "torch.distributed.scatter_object", "torch.distributed.recv_object", "yaml.load", "yaml.unsafe", "yaml.full",
    "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "numpy.lib.format.read_array",
)  # fmt: skip
"""Names, or beginnings of names."""
EXECUTING_METHODS = {
    "exec_module",
    "find_module",
    "load_checkpoint",
    "get_fp32_state_dict_from_zero_checkpoint",
    "extractall",
    "extract",
}
"""Names that execute, unpickle or write anywhere, whatever they are called on."""
WORDS = {"allow_pickle", "shell", "trust_remote_code"}
"""Arguments that may be nothing but False."""

DELETES = (
    "shutil.rmtree",
    "shutil.move",
    "os.remove",
    "os.unlink",
    "os.rmdir",
    "os.removedirs",
    "os.rename",
    "os.replace",
    "os.truncate",
)
DELETING_METHODS = {"unlink", "rmdir", "rmtree", "rename"}


class Walk(ast.NodeVisitor):
    """Collects "file function: name" of every reference that can execute, and of every one that can delete."""

    def __init__(self, file: str):
        self.file, self.within, self.alias = file, ["module"], {}
        self.arguments: list[set[str]] = [set()]
        self.runs: set[str] = set()
        self.deletes: set[str] = set()

    def note(self, found: set[str], name: str) -> None:
        found.add(f"{self.file} {self.within[-1]}: {name}")

    def visit_Import(self, node: ast.Import) -> None:
        for a in node.names:
            self.alias[a.asname or a.name.partition(".")[0]] = a.name if a.asname else a.name.partition(".")[0]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for a in node.names:
            self.alias[a.asname or a.name] = f"{node.module}.{a.name}"
            self.judge(f"{node.module}.{a.name}", a.name)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        outermost = len(self.within) == 1
        self.within.append(node.name if outermost else self.within[-1])
        self.arguments.append(self.arguments[-1] | {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)})
        self.generic_visit(node)
        self.arguments.pop()
        self.within.pop()

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef  # type: ignore[assignment]

    def dotted(self, node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return self.alias.get(node.id, node.id)
        return f"{self.dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"

    def judge(self, name: str, last: str) -> None:
        if name.startswith(tuple(e for e in EXECUTES if e.endswith(".") or "." in e)) or name in EXECUTES:
            self.note(self.runs, name)
        elif last in EXECUTING_METHODS:
            self.note(self.runs, last)
        if name.startswith(DELETES):
            self.note(self.deletes, name)
        elif last in DELETING_METHODS:
            self.note(self.deletes, f".{last}")

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id not in self.arguments[-1]:
            self.judge(self.dotted(node), "")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.judge(self.dotted(node), node.attr)
        if not isinstance(node.value, ast.Name | ast.Attribute):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = self.dotted(node.func)
        for word in node.keywords:
            if word.arg in WORDS and not (isinstance(word.value, ast.Constant) and word.value.value is False):
                self.note(self.runs, f"{name}({word.arg}=)")
        if name == "importlib.import_module" and not isinstance(node.args[0], ast.Constant):
            self.note(self.runs, name)
        one = len(node.args) == 1 and not node.keywords  # a text's takes two, a dataclass's takes keywords
        if isinstance(node.func, ast.Attribute) and node.func.attr == "replace" and one:
            self.note(self.deletes, ".replace")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "truncate":
            self.note(self.deletes, ".truncate")
        self.generic_visit(node)


def walked(text: str, file: str = "x.py") -> Walk:
    walk = Walk(file)
    walk.visit(ast.parse(text))
    return walk


@pytest.fixture(scope="module")
def whole_source() -> list[Walk]:
    return [walked(f.read_text(), f.relative_to(ROOT).as_posix()) for f in sorted(ROOT.rglob("*.py"))]


def test_few_places_can_run_what_was_read(whole_source):
    found = set().union(*(walk.runs for walk in whole_source))
    assert sorted(found - RUN.keys()) == [], "new: is there no other way?"
    assert sorted(RUN.keys() - found) == [], "gone: strike them out"


def test_few_places_delete_or_replace(whole_source):
    found = set().union(*(walk.deletes for walk in whole_source))
    assert sorted(found - DELETE.keys()) == [], "new: files.own and files.atomic do it"
    assert sorted(DELETE.keys() - found) == [], "gone: strike them out"


def test_the_torch_files_are_read_by_the_restricted_reader():
    for name in ("imports/reader.py", "train/sharded.py"):
        calls = [n for n in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(n, ast.Call)]
        loads = [n for n in calls if isinstance(n.func, ast.Attribute) and ast.unparse(n.func) == "torch.load"]
        assert len(loads) == 1
        assert [ast.unparse(w) for w in loads[0].keywords if w.arg == "weights_only"] == ["weights_only=True"]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


RISKY = """
    eval(x)
    run = exec
    import subprocess as s; s.run(x)
    from subprocess import run as go; go(x)
    from os import system
    import os; os.execvp(x, y)
    import numpy as np; np.load(x, allow_pickle=True)
    import pickle; f(pickle.loads)
    import torch as t; t.load(x)
    import torch.distributed.checkpoint as dcp; dcp.load(x)
    import yaml; yaml.load(x, yaml.SafeLoader)
    import importlib; importlib.import_module(x)
    from ctypes import CDLL
    engine.load_checkpoint(x)
    tar.extractall(x)
    f(shell=x)
"""
REMOVING = """
    import shutil; shutil.rmtree(x)
    from os import remove
    import os; os.replace(x, y)
    path.unlink()
    path.parent.rename(x)
    path.replace(x)
    file.truncate(0)
"""
FINE = """
    re.compile(x)
    def f(compile): return compile
    config.truncate
    model.eval()
    import torch; torch.compile(x)
    text.replace(x, y)
    import dataclasses; dataclasses.replace(c, a=1)
    import importlib; importlib.import_module("tessera.cli")
    import numpy as np; np.load(x, mmap_mode="r")
    import yaml; yaml.safe_load(x)
"""


@pytest.mark.parametrize("line", lines(RISKY))
def test_the_walk_sees_what_executes(line):
    assert walked(line).runs


@pytest.mark.parametrize("line", lines(REMOVING))
def test_the_walk_sees_what_deletes(line):
    assert walked(line).deletes


@pytest.mark.parametrize("line", lines(FINE))
def test_the_walk_passes_over_the_rest(line):
    walk = walked(line)
    assert not walk.runs | walk.deletes
