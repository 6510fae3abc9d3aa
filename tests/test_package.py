"""What a package index and a type checker see of the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import tessera

ROOT = Path(__file__).parents[1]


def test_the_package_says_that_it_is_typed():
    assert (Path(tessera.__file__).parent / "py.typed").is_file()


def test_the_page_on_a_package_index_links_to_nothing_that_is_not_there():
    """There are no files beside it: no relative link, no picture."""
    page = (ROOT / tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["readme"]).read_text()
    links = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", page)
    assert all(link.startswith("https://") for pair in links for link in pair if link)
    assert "tessera learn" in page


def test_the_readme_shows_the_table_of_measurements():
    done = subprocess.run([sys.executable, str(ROOT / "bench/table.py")], capture_output=True, text=True, check=True)
    shown = (ROOT / "README.md").read_text("utf-8").split("<!-- bench -->\n")[1].split("<!-- /bench -->")[0]
    assert shown == done.stdout, "make bench, and put what it prints between the marks"
