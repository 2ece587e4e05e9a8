"""The documents are whole: links and targets exist, every page and every config file is listed."""

import re
import subprocess

import pytest
import yaml
from helpers import CONF, ROOT

DOCS = ROOT / "docs"
DOCUMENTS = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
PROJECT_PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md")  # the site shows them too, where links would break


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 8000


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name} links to {target}, which does not exist"
        assert not document.is_relative_to(DOCS) or file.is_relative_to(DOCS), (
            f"{document.name} links to {target}, which is not on the site: name the file instead")
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{document.name} links to {target}, but {file.name} has no such section"


@pytest.mark.parametrize("name", PROJECT_PAGES)
def test_pages_shown_on_the_site_have_no_links_into_the_repository(name):
    assert not re.findall(r"\]\((?!https?:|#)", (ROOT / name).read_text())
    assert (DOCS / "project" / name.lower()).read_text() == f'--8<-- "{name}"\n'


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w/-]+\.md", yaml.dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_every_config_file_is_shown():
    shown = re.findall(r'--8<-- "(.*)"', (DOCS / "reference/config-files.md").read_text())
    assert sorted(shown) == sorted(path.relative_to(ROOT).as_posix() for path in CONF.rglob("*.yaml"))


def test_every_image_is_used():
    used = {name for document in DOCUMENTS for name in re.findall(r"images/([\w-]+\.png)", document.read_text())}
    assert used == {path.name for path in (DOCS / "images").iterdir()}


def test_every_file_that_is_named_exists():
    """Check the paths in code font that begin with a folder of the repository."""
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:segtrain|conf|scripts|tests|docs)/[\w./-]+)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}, which does not exist"


def test_every_make_target_exists_and_is_listed():
    targets = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split())
    for document in DOCUMENTS:
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(), re.MULTILINE))
        assert named <= targets, f"{document.name} names make targets that do not exist: {named - targets}"
    listed = subprocess.run(["make", "-s", "-C", ROOT, "help"], check=True, capture_output=True, text=True).stdout
    assert targets <= set(re.findall(r"make ([a-z-]+)", listed))


def test_nobody_is_sent_to_a_package_index():
    for document in DOCUMENTS:
        assert not re.search(r"pip install ['\"]?segtrain", document.read_text()), document.name
