"""Each page shows the error that it is about; `docs_test.py` sees to its blocks."""

import re

import pytest

import house
from linnet import nn

FOLDER = house.ROOT / "docs" / "errors"
PAGES = sorted(FOLDER.glob("LN-*.md"))
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def raised(text):
    """The error that the page's marked block ends in."""
    names = {"__name__": "page"}
    for option, code in BLOCK.findall(text):
        if "raises=" not in option:
            exec(code, names)
            continue
        with pytest.raises(nn.LinnetError) as caught:
            exec(code, names)
        return caught.value
    raise AssertionError("no block is marked to raise")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_raises_its_own_error(page):
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.stem}: ")
    error = raised(text)
    assert error.code == page.stem
    for when, _ in error.fixes:
        assert f"\n{when[0].upper()}{when[1:]}:\n" in text


def test_the_index_lists_every_page_under_its_title():
    index = (FOLDER / "index.md").read_text("utf-8")
    listed = re.findall(r"^- \[(\S+)\]\((\S+)\.md\): (.+)$", index, re.MULTILINE)
    titles = [page.read_text("utf-8").splitlines()[0] for page in PAGES]
    assert sorted(f"# {code}: {title}" for code, _, title in listed) == sorted(titles)
    assert all(code == target for code, target, _ in listed)


def test_a_page_without_its_error_is_seen():
    with pytest.raises(AssertionError, match="no block is marked"):
        raised("```python\nx = 1\n```\n")
    with pytest.raises(pytest.fail.Exception):
        raised("```python raises=ShapeError\nx = 1\n```\n")
