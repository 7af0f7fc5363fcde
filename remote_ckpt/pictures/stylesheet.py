"""The stylesheet of a page, for light and dark screens."""

from __future__ import annotations

from remote_ckpt.pictures.palette import LOOKS, look

_RULES = """
:root { color-scheme: light dark; --paper: #fff; --ink: #24292f; --faint: #667079; --rule: #e4e7ea; --bar: #cfe3f3 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e3e6e9; --faint: #98a2ab; --rule: #2b3137; --bar: #24475f }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; overflow-wrap: anywhere }
p { margin: 0 } .faint, figure p { color: var(--faint); font-size: .87rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
th { font-weight: 500; color: var(--faint) }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap }
.word { text-align: left } td.word { white-space: normal; overflow-wrap: anywhere }
td:first-child svg { display: block } th:first-child, td:first-child { padding-left: 0; width: 34px }
tbody tr:first-child td { font-weight: 600 }
td:nth-child(8) { position: relative; min-width: 8rem }
.bar { position: absolute; right: .3rem; top: 22%; height: 56%; background: var(--bar); border-radius: 3px; z-index: -1;
       max-width: calc(100% - .6rem) }
figure { margin: 1.5rem 0 0 } figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .25rem }
.chart { display: block; width: 100%; height: auto; font-size: 12px } .chart text { fill: var(--faint) }
.grid { stroke: var(--rule) } .foot { stroke: var(--faint) }
g > path, g > line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round }
g > .scores { stroke-width: 1; opacity: .45 }
g > circle { fill: currentColor } g > .ring { fill: var(--paper); stroke: currentColor; stroke-width: 2 }
.chart g > .unknown { fill: currentColor; font-size: 14px }
details { margin-top: 1.25rem } summary { cursor: pointer; color: var(--faint) }
.objects { font-size: .82rem } .objects tr:first-child td { font-weight: 400 } .objects td { min-width: 9rem }
"""


def _looks() -> str:
    light, dark = [], []
    for place in range(LOOKS):
        style = look(place)
        dashes = f"; stroke-dasharray: {' '.join(f'{length * 2:g}' for length in style.dashes)}" if style.dashes else ""
        light.append(f".look-{place} {{ color: {style.light} }}")
        light += [f".look-{place} > .best {{ {dashes[2:]} }}"] if dashes else []
        dark.append(f".look-{place} {{ color: {style.dark} }}")
    return "\n".join([*light, "@media (prefers-color-scheme: dark) {", *dark, "}\n"])


STYLESHEET = _RULES + _looks()
"""The complete stylesheet; no rule makes a network request."""
