"""What MkDocs does not do by itself: navigation by folder, formulas, marked blocks."""

import pathlib
import re

from latex2mathml.converter import convert

SECTIONS = {
    "Guides": "guides",
    "API": "api",
    "Errors": "errors",
    "Design": "design",
}
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>',
    re.DOTALL,
)
ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}


def on_config(config):
    """Home, then the pages of each folder by name, then what stands alone."""
    docs = pathlib.Path(config["docs_dir"])
    pages = {
        title: [str(p.relative_to(docs)) for p in _pages(docs / folder)]
        for title, folder in SECTIONS.items()
    }
    config["nav"] = [
        {"Home": "index.md"},
        *({title: found} for title, found in pages.items() if found),
        {"Accuracy": "accuracy.md"},
        {"Changelog": "changelog.md"},
    ]
    return config


def _pages(folder):
    """The pages below a folder, its index first."""
    return sorted(folder.rglob("*.md"), key=lambda p: (p.name != "index.md", p))


def on_page_markdown(markdown, **_):
    """A block that must raise, which the tests check, says so to the reader."""
    return re.sub(
        r"^( *```python) raises=(\w+)", r'\1 title="raises \2"', markdown, flags=re.M
    )


def on_page_content(html, **_):
    """Formulas become MathML, which browsers show without a script."""
    html = FORMULA.sub(_mathml, html)
    if 'class="arithmatex"' in html:
        raise ValueError("a formula was found that is not converted to MathML")
    return html


def _mathml(match):
    latex = match["latex"]
    for entity, character in ENTITIES.items():
        latex = latex.replace(entity, character)
    return convert(latex, display="inline" if match["tag"] == "span" else "block")
