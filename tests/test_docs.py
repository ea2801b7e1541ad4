"""What the project's pages promise: links that lead somewhere, numbers that were filled in."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_project(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_path_of_a_machine_is_printed(page):
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)/\S+", page.read_text()) == []


def test_the_map_names_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text()
    words = set(re.findall(r"\w+", text))
    folders = ("aver_jax", "aver_jax/experiments", "aver_jax/frontend", "aver_jax/relevance")
    modules = {path.stem for folder in folders for path in (ROOT / folder).glob("*.py")}
    known = {stem for stem in modules if stem.startswith("__") or stem in ("cli", "errors")}
    assert sorted(modules - words - known) == []
