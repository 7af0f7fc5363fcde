"""HTML and SVG, with every text from a bucket escaped."""

from __future__ import annotations

import html

from remote_ckpt.formatting import safe


class Markup(str):
    """A text to be used as HTML or SVG unescaped; made only by `element`, `joined` and literals of this package."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element. Attributes are escaped, and all children except `Markup`.

    Args:
        tag: The element's name.
        *children: The content.
        **attributes: A trailing underscore is dropped (`class_`), others become hyphens (`text_anchor`). An attribute
            of None is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(safe(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(parts: object) -> Markup:
    """Return the parts joined, each escaped unless already `Markup`."""
    if isinstance(parts, Markup):
        return parts
    if isinstance(parts, list | tuple):
        return Markup("".join(joined(part) for part in parts))
    return Markup(html.escape(safe(parts)))
