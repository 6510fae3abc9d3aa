"""What a package index and a type checker see of the package."""

import re
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
