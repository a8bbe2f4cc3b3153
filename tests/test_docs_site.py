"""The documentation site: its pages, and what it makes of links."""

import importlib
import re

import pytest
from conftest import HOME

from scripts.docs_site import API, BLOB, api_page, from_readme, on_page_markdown


@pytest.mark.parametrize("name", [name for names in API.values() for name in names])
def test_the_api_page_documents_what_exists(name):
    module, attribute = name.rsplit(".", 1)
    found = getattr(importlib.import_module(f"facial_keypoints.{module}"), attribute)
    assert found.__doc__ and f"::: facial_keypoints.{name}\n" in api_page()


def test_the_links_of_the_readme_lead_to_pages():
    text = from_readme((HOME / "README.md").read_text())
    for place in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not place.startswith(("http", "../")):
            assert (HOME / "docs" / place).exists(), place
    assert on_page_markdown("[a](../LICENSE) [b](data.md)") == f"[a]({BLOB}LICENSE) [b](data.md)"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"([\w-]+\.md)$", (HOME / ".github" / "mkdocs.yml").read_text(), re.M))
    written = {path.name for path in (HOME / "docs").glob("*.md")}
    assert listed == written | {"index.md", "api.md"}
