"""Each page of the documentation runs, from its first block to its last.

A fenced block marked `python` runs, in one namespace per page and in a folder of its
own; one marked `python raises=ScopeError` must end in that error. Blocks inside a
comment of the page run too, for what a page needs but its readers do not.
"""

import builtins
import pathlib
import re
import sys
import textwrap
import traceback
import types

import jax
import pytest

from linnet import _errors

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent>[ ]*)```[ ]*python(?P<option>[^\n]*)\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
RAISES = re.compile(r"raises=(\w+)")


def marked(page):
    """The page, and whether it takes long: guides do, but for the first one."""
    is_long = page.parent.name == "guides" and page.stem != "one-page"
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] * is_long)


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_page_runs(page, tmp_path, monkeypatch):
    check_page(page, tmp_path, monkeypatch)


def check_page(page, folder, monkeypatch):
    """Executes the blocks of a page, as one module that lies where the page does."""
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(folder)
    text = page.read_text("utf-8")
    for block in FENCE.finditer(text):
        # Empty lines before the code give an error the line numbers of the page.
        above = "\n" * text.count("\n", 0, block.start("code"))
        code = compile(above + textwrap.dedent(block["code"]), str(page), "exec")
        expected = RAISES.search(block["option"])
        # Readers have JAX as it comes, not as strict as the other tests.
        with jax.numpy_rank_promotion("allow"):
            if expected is None:
                exec(code, vars(module))
                continue
            with pytest.raises(error_class(expected[1], module)):
                exec(code, vars(module))


def error_class(name, *places):
    """The class of this name: the page's own, Linnet's, or Python's."""
    found = [getattr(place, name, None) for place in (*places, _errors, builtins)]
    return next(filter(None, found))


@pytest.fixture
def run_text(tmp_path, monkeypatch):
    def run_text(text):
        page = tmp_path / "page.md"
        page.write_text(text, "utf-8")
        check_page(page, tmp_path, monkeypatch)

    return run_text


def test_blocks_share_a_namespace_and_others_do_not_run(run_text):
    run_text(
        "Text.\n```python\nx = 1\n```\n```\n1 / 0\n```\n```bash\nexit 1\n```\n"
        "<!--\n```python\ny = 1\n```\n-->\n"
        "- a list\n\n    ```python\n    if x:\n        assert y == 1\n    ```\n"
    )
    with pytest.raises(AssertionError):
        run_text("```python\nx = 1\n```\n\n    ```python\n    assert x == 2\n    ```\n")


def test_an_error_has_the_line_number_of_the_page(run_text):
    with pytest.raises(ZeroDivisionError) as caught:
        run_text("# Title\n\n```python\nx = 0\n```\n\n```python\n\n1 / x\n```\n")
    place = traceback.extract_tb(caught.tb)[-1]
    assert (pathlib.Path(place.filename).name, place.lineno) == ("page.md", 9)
    assert place.line == "1 / x"


@pytest.mark.parametrize("code", ["1 + 1", "raise ValueError"])
def test_a_block_that_must_raise_has_to(run_text, code):
    with pytest.raises((pytest.fail.Exception, ValueError)):
        run_text(f"```python raises=ZeroDivisionError\n{code}\n```\n")


def test_a_block_may_raise_what_it_says(run_text):
    run_text(
        "```python\nclass Own(Exception): pass\n```\n"
        "```python raises=Own\nraise Own\n```\n"
        "```python raises=ZeroDivisionError\n1 / 0\n```\n"
    )
    with pytest.raises(_errors.ScopeError):
        run_text(
            "```python\nfrom linnet._errors import ScopeError\n"
            "raise ScopeError('Here.', code='LN-NONE-99')\n```\n"
        )
