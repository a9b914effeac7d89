"""Docstring sections of Linnet's own, made known to the parser of docstrings."""

import re

import griffe

# Google's style takes "Parameters" for arguments; in Linnet they are a model's arrays.
OWN = re.compile(r"^(\s*)Parameters:[ ]*$", re.MULTILINE)
# A section whose text stands on its own line becomes one with an indented text.
INLINE = re.compile(r"^([ ]*)(Differs from|Source):[ ]+(\S.*(?:\n\1[ ]*\S.*)*)", re.M)


class Sections(griffe.Extension):
    """Rewrites the sections before they are parsed."""

    def on_object(self, *, obj, **_):
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            text = OWN.sub(r"\1Trained arrays:", obj.docstring.value)
            obj.docstring.value = INLINE.sub(_indented, text)


def _indented(match):
    indent, title, text = match.groups()
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join([f"{indent}{title}:", *(f"{indent}    {line}" for line in lines)])
