"""HTML and SVG in which nothing that comes from a bucket can become markup."""

from __future__ import annotations

import html

from remote_ckpt.human import safe


class Markup(str):
    """Text that is markup already; only `element` and `joined` make it, and literals of ours."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element. Children that are no `Markup`, and all attributes, are escaped.

    Args:
        tag: The element's name.
        *children: What is in it.
        **attributes: `class_` and such without the last underscore, others with hyphens; None leaves one out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(safe(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(parts: object) -> Markup:
    """Return parts one after the other; those that are no `Markup` are escaped."""
    if isinstance(parts, Markup):
        return parts
    if isinstance(parts, list | tuple):
        return Markup("".join(joined(part) for part in parts))
    return Markup(html.escape(safe(parts)))
