"""A page as a browser's parser sees it: elements with their attributes, and the text that is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Element:
    """An element and the text in it."""

    tag: str
    attributes: dict[str, str | None]
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its text, white space made one."""
        return " ".join(" ".join(self.parts).split())

    def get(self, name: str) -> str:
        """An attribute, empty where it is not there."""
        return self.attributes.get(name) or ""


_VOID = {"meta", "link", "input", "br"}


class Html(HTMLParser):
    """Every element of a page, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if any(element.tag == tag for element in self._open):
            while self._open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.parts.append(data)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of this name with these attributes, each a regular expression; ``cls`` is the class."""
        wanted = {{"cls": "class"}.get(name, name): value for name, value in attributes.items()}
        return [
            element
            for element in self.elements
            if element.tag == tag and all(re.search(value, element.get(name)) for name, value in wanted.items())
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        """The only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        """What is in the body."""
        return self.one("body").text

    @property
    def addresses(self) -> list[str]:
        """Everything that links, loads or posts."""
        names = ("href", "src", "action", "hx-get", "data-href", "data-root")
        return [element.get(name) for element in self.elements for name in names if name in element.attributes]
