"""For `make docs`: docstrings as Markdown. Examples are fenced as code, lines `name: text` become a list."""

import re
from typing import Any

import griffe


class Markdown(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """
    >>> markdown("Text.\\n\\na: one\\nb: two\\n\\n>>> 1 + 1\\n2")
    'Text.\\n\\n- `a`: one\\n- `b`: two\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    paragraphs = []
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith(">>> "):
            paragraph = f"```pycon\n{paragraph}\n```"
        elif len(re.findall(r"^\w+: ", paragraph, re.M)) > 1:
            paragraph = re.sub(r"^(\w+): ", r"- `\1`: ", paragraph, flags=re.M)
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)
