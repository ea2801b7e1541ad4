"""What the project's pages promise: links that lead somewhere, numbers that were filled in."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_project(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_path_of_a_machine_is_printed(page):
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)/\S+", page.read_text()) == []


def test_the_map_names_every_folder_and_the_modules_of_small_ones():
    text = (ROOT / "docs" / "architecture.md").read_text()
    words = set(re.findall(r"\w+", text))
    packages = {p.parent for p in (ROOT / "aver_jax").rglob("__init__.py")}
    assert sorted({p.name for p in packages} - words) == []
    folders = ("", "runtime", "frontend", "relevance", "config", "input", "runs", "evaluation",
               "finetune", "training", "prediction", "explanation", "experiments",
               "bench")  # fmt: skip
    modules = {path.stem for name in folders for path in (ROOT / "aver_jax" / name).glob("*.py")}
    assert sorted(modules - words - {"__init__", "__main__"}) == []


def modules() -> dict[str, list[str]]:
    """Last name of every module and package -> the texts that may define its attributes."""
    found: dict[str, list[str]] = {}
    for top in ("aver_jax", "data_prep", "tools"):
        for path in (ROOT / top).rglob("*.py"):
            package = path.name == "__init__.py"
            text = path.read_text()
            if package:
                text += " ".join(child.stem for child in path.parent.iterdir())
            found.setdefault(path.parent.name if package else path.stem, []).append(text)
    return found


# What else a dotted name is: a file, a field of a config, or of another library.
FILES = (".py", ".md", ".csv", ".json", ".jsonl", ".png", ".toml", ".npz", ".html", ".txt", ".sh")
FIELDS = {"config", "data", "model", "models", "frontend", "evaluation", "optimizer", "schedule"}
LIBRARIES = {"tfds"}


def test_dotted_names_in_pages_and_docstrings_exist():
    known = modules()
    # What the changelog and the records of measurements name may be gone.
    pages = [p for p in PAGES if p.name != "CHANGELOG.md" and "benchmarks" not in p.parts]
    sources = [p for top in ("aver_jax", "data_prep", "tools") for p in (ROOT / top).rglob("*.py")]
    stale = []
    for path in [*pages, *sources]:
        for name in re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_]+)`", path.read_text()):
            *parents, last = name.split(".")
            elsewhere = name.endswith(FILES) or parents[0] in FIELDS | LIBRARIES
            if elsewhere or parents[-1] not in known:
                continue
            if not any(re.search(rf"\b{last}\b", text) for text in known[parents[-1]]):
                stale.append(f"{path.relative_to(ROOT)}: {name}")
    assert stale == []


def test_no_folder_is_crowded_and_few_modules_are_loose():
    assert len(list((ROOT / "aver_jax").glob("*.py"))) <= 8
    packages = {p.parent for p in (ROOT / "aver_jax").rglob("__init__.py")}
    crowded = {p.name: len(list(p.glob("*.py"))) for p in packages}
    assert {name: count for name, count in crowded.items() if count > 14} == {}
