"""SVG pictures, in one style: elements, colours and the frame around what is drawn.

A picture is text that is the same on every machine: attributes in the order given, numbers with
at most two decimals, no date and no font metrics.  It has no script.  Colours are those of Okabe
and Ito, which people with any colour vision tell apart, and nothing is said by colour alone.  A
picture has a background of its own and is light or dark as its reader's system is; who cannot
tell which it is shows the light one.
"""

from __future__ import annotations

from collections.abc import Iterable

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = PALETTE = (
    *("#000000", "#e69f00", "#56b4e9", "#009e73"),
    *("#f0e442", "#0072b2", "#d55e00", "#cc79a7"),
)
FILLS = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE)  # in turn, for things with a number
FONT = "system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif"
WIDE = 0.62  # of a character, in font sizes: more than any font of these takes on average

# What a class looks like: its properties, and those that are others in the dark.
CLASSES: dict[str, tuple[str, str]] = {
    "paper": ("fill:#ffffff", "fill:#16191d"),
    "text": ("fill:#1d2126", "fill:#e8eaed"),
    "faint": ("fill:#5a626b", "fill:#a9b1ba"),
    "box": ("fill:#f1f3f5;stroke:#9aa3ad", "fill:#22272d;stroke:#6c757f"),
    "slot": ("fill:none;stroke:#b4bcc5", "fill:none;stroke:#555e68"),
    "line": ("fill:none;stroke:#5a626b", "fill:none;stroke:#a9b1ba"),
    "grid": ("fill:none;stroke:#dde1e6", "fill:none;stroke:#343b43"),
    "edge": ("stroke:#1d2126", "stroke:#e8eaed"),
    "dark": ("fill:#111417", "fill:#111417"),  # on fills, which are the same by day and by night
    "pale": ("fill:#ffffff", "fill:#ffffff"),
}


def number(value: float) -> str:
    """Return a number as an attribute: at most two decimals.

    >>> number(3.0), number(1 / 3), number(-0.001)
    ('3', '0.33', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def escaped(text: str) -> str:
    """Return text as content or attribute.

    >>> escaped("a < b & c")
    'a &lt; b &amp; c'
    """
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(sign, name)
    return text


def element(name: str, content: str = "", /, **attributes: float | str | None) -> str:
    """Return an element around content that is SVG already.

    ``_`` stands for ``-`` in the name of an attribute; ``kind`` is its class.

    >>> element("rect", x=1.5, stroke_width=2, kind="box")
    '<rect x="1.5" stroke-width="2" class="box"/>'
    """
    told = ""
    for key, value in attributes.items():
        if value is not None:
            word = value if isinstance(value, str) else number(value)
            told += f' {"class" if key == "kind" else key.replace("_", "-")}="{escaped(word)}"'
    return f"<{name}{told}>{content}</{name}>" if content else f"<{name}{told}/>"


def group(parts: Iterable[str], **attributes: float | str | None) -> str:
    """Return elements as one."""
    return element("g", "".join(parts), **attributes)


def rect(x: float, y: float, width: float, height: float, **more: float | str | None) -> str:
    """Return a rectangle."""
    return element("rect", x=x, y=y, width=width, height=height, **more)


def line(x: float, y: float, to_x: float, to_y: float, **more: float | str | None) -> str:
    """Return a straight line."""
    return element("line", x1=x, y1=y, x2=to_x, y2=to_y, **({"kind": "line"} | more))


def text(
    x: float,
    y: float,
    words: str,
    size: float = 13,
    anchor: str | None = None,
    kind: str = "text",
    **more: float | str | None,
) -> str:
    """Return words whose baseline begins at (x, y), or with ``anchor`` is in the middle or ends.

    ``middle`` and ``end`` are anchors.
    """
    return element(
        "text", escaped(words), x=x, y=y, font_size=size, text_anchor=anchor, kind=kind, **more
    )


def breadth(words: str, size: float) -> float:
    """Return a width in which words have room, in any of the fonts."""
    return WIDE * size * len(words)


def on(fill: str) -> str:
    """Return the class of words that can be read on a colour."""
    return "pale" if fill in (BLUE, BLACK) else "dark"


def fill(place: int) -> str:
    """Return the colour of the thing with this number."""
    return FILLS[place % len(FILLS)]


def picture(
    width: float, height: float, title: str, about: str, parts: Iterable[str], style: str = ""
) -> str:
    """Return a whole file: what it shows in a few words, and in sentences, then its elements.

    ``style``: more of CSS.
    """
    rules = "".join(f".{name}{{{light}}}" for name, (light, _) in CLASSES.items())
    dark = "".join(f".{name}{{{night}}}" for name, (_, night) in CLASSES.items())
    css = f"text{{font-family:{FONT}}}{rules}@media(prefers-color-scheme:dark){{{dark}}}{style}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(width)}" '
        f'height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}" '
        f'role="img" aria-labelledby="title about">'
    )
    inside = [
        element("title", escaped(title), id="title"),
        element("desc", escaped(about), id="about"),
        element("style", css),
        rect(0, 0, width, height, rx=8, kind="paper"),
        *parts,
    ]
    return "\n".join([head, *inside, "</svg>", ""])
