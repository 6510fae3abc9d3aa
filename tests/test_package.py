"""What a package index, a type checker and a newcomer's tools see of the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tessera
from tessera.errors import DISTRIBUTION, install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"([a-z0-9-]+)==(\S+)\s+# via (.+)")


def pins() -> dict[str, tuple[str, list[str]]]:
    """By name: version, and who wants it."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    found = [PIN.fullmatch(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {m[1]: (m[2], m[3].replace(" (pyproject.toml)", "").split(", ")) for m in found if m}


def test_the_package_says_that_it_is_typed():
    assert (Path(tessera.__file__).parent / "py.typed").is_file()


def test_importing_it_warns_of_nothing_and_loads_no_torch():
    asked = (
        "import tessera, sys; assert 'torch' not in sys.modules; from tessera import *; print(load, train, Pipeline)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", asked], check=True, capture_output=True)


@pytest.mark.parametrize("name", tessera.__all__)
def test_every_public_name_is_there_and_explained(name: str):
    found = getattr(tessera, name)
    assert isinstance(found, str) or found.__doc__


def test_what_is_looked_up_later_is_public():
    assert set(tessera.LATER) < set(tessera.__all__)
    with pytest.raises(AttributeError, match="no attribute 'loadd'"):
        tessera.loadd  # type: ignore[attr-defined]  # noqa: B018


def test_the_install_line_names_the_package_and_extras_that_there_are():
    assert PROJECT["name"] == DISTRIBUTION
    assert install("judge") == f"pip install '{DISTRIBUTION}[judge]'"
    said = re.compile(r"install\([\"']([\w,]+)[\"']\)")
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    asked = {extra for f in files for names in said.findall(f.read_text()) for extra in names.split(",")}
    assert asked
    assert asked <= PROJECT["optional-dependencies"].keys()


def test_documents_name_the_package_as_it_is_installed():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    lines = [line for p in pages for line in re.findall(r"pip install [^\n`]*", p.read_text("utf-8"))]
    extras = [names for line in lines for names in re.findall(r"\[([\w,]+)\]", line)]
    assert {e for names in extras for e in names.split(",")} <= PROJECT["optional-dependencies"].keys()
    assert not [line for line in lines if "tessera[" in line or line.endswith(" tessera")]


def test_the_page_on_a_package_index_links_to_nothing_that_is_not_there():
    """There are no files beside it: no relative link, no picture."""
    page = (ROOT / PROJECT["readme"]).read_text()
    links = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", page)
    assert all(link.startswith("https://") for pair in links for link in pair if link)
    assert "tessera learn" in page
    assert f"pip install {DISTRIBUTION}" in page


def test_the_readme_shows_the_table_of_measurements():
    done = subprocess.run([sys.executable, str(ROOT / "bench/table.py")], capture_output=True, text=True, check=True)
    assert done.stdout in (ROOT / "docs/speed.md").read_text("utf-8"), (
        "make bench, and put what it prints into the page"
    )


def test_every_pin_is_wanted_and_every_want_is_pinned():
    """By a package that is pinned itself, or by Tessera."""
    found = pins()
    unknown = {n: by for n, (_, by) in found.items() if not {*found, DISTRIBUTION} >= set(by)}
    assert not unknown
    extras = PROJECT["optional-dependencies"]
    direct = [Requirement(line) for line in [*PROJECT["dependencies"], *extras["dev"], *extras["ray"]]]
    brought = [Requirement(line) for r in direct if r.name == DISTRIBUTION for e in r.extras for line in extras[e]]
    for requirement in [r for r in [*direct, *brought] if r.name != DISTRIBUTION]:
        version, by = found[canonicalize_name(requirement.name)]
        assert DISTRIBUTION in by
        assert requirement.specifier.contains(version), requirement


def test_the_changelog_has_this_version_in_keep_a_changelogs_form():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    heads = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.M)
    assert heads[0] == ("Unreleased", "")
    assert heads[1][0] == tessera.__version__
    assert all(date for _, date in heads[1:])
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security",
    }  # fmt: skip
    assert set(re.findall(r"^\[(.+?)\]: https", text, re.M)) == {name for name, _ in heads}


def test_before_a_commit_ruff_is_the_one_that_is_pinned():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    asked = {d for h in hooks for d in h.get("additional_dependencies", ())}
    assert asked == {f"ruff=={pins()['ruff'][0]}"}


def test_continuous_integration_runs_what_there_is():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    runs = " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    assert "bash .ci/run" in runs
    matrix = jobs["matrix"]["strategy"]["matrix"]
    lowest = next(Requirement(d) for d in PROJECT["dependencies"] if d.startswith("torch"))
    assert f"=={str(lowest.specifier).removeprefix('>=')}.*" in matrix["torch"]
    assert PROJECT["requires-python"].removeprefix(">=") in matrix["python"]
    said = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert set(matrix["python"]) <= said
    assert {"ubuntu-latest", "macos-latest"} == set(matrix["os"])
