"""The style of a report: light and dark, on a screen and on paper."""

_COLORS = {
  'light': '#0b5fa5 #b3400a #00705a #8a2f8f #755800 #b8174f #4a4a4a #2f6f1c',
  'dark': '#6cb6ff #ff9e64 #4fd1b0 #d79bea #e3c04b #ff8fae #c4c4c4 #9bd67f',
}
_LIGHT = """
  --paper: #ffffff; --ink: #1b1f24; --soft: #57606a; --rule: #d5dae0;
  --tint: #f4f6f8; --good: #11632b; --good-tint: #dff5e5; --bad: #9a1c1c;
  --bad-tint: #fde4e2; --open: #6b4a00; --open-tint: #fbf0cf;
"""
_DARK = """
  --paper: #14171b; --ink: #e7eaee; --soft: #a3acb6; --rule: #363d46;
  --tint: #1d2228; --good: #7fe0a0; --good-tint: #143a22; --bad: #ffaaa3;
  --bad-tint: #4a1a18; --open: #f2d27a; --open-tint: #40330c;
"""
_RULES = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--rule); }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .925rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .925rem;
  font-variant-numeric: tabular-nums; margin: .75rem 0; }
th, td { padding: .4rem .6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; overflow-wrap: break-word; min-width: 9rem; }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; }
.word { display: inline-block; padding: .1rem .5rem; border-radius: .3rem;
  font-weight: 700; font-size: .85rem; white-space: nowrap;
  border: 1px solid currentColor; }
.helps { color: var(--good); background: var(--good-tint); }
.hurts { color: var(--bad); background: var(--bad-tint); }
.no-gain { color: var(--soft); background: var(--tint); }
.unclear { color: var(--open); background: var(--open-tint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem;
  margin: .75rem 0; font-size: .925rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
pre { background: var(--tint); border: 1px solid var(--rule); padding: .75rem
  1rem; border-radius: .4rem; overflow-x: auto; margin: .75rem 0; }
figure { margin: .75rem 0 1.5rem; }
summary { cursor: pointer; margin: .75rem 0; }
svg { display: block; width: 100%; min-width: 38rem; height: auto;
  font: 12px system-ui, "Noto Sans", "DejaVu Sans", sans-serif; }
svg text { fill: var(--soft); }
svg .label { fill: var(--c); font-weight: 600; }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg .line { fill: none; stroke: var(--c); stroke-width: 2;
  stroke-linejoin: round; }
svg .d1 { stroke-dasharray: 7 4; } svg .d2 { stroke-dasharray: 2 3; }
svg .dot { fill: var(--c); stroke: none; }
svg .band { fill: var(--c); opacity: .15; }
svg .ideal { stroke: var(--soft); stroke-dasharray: 2 4; }
.gallery { display: grid; gap: .75rem; margin: .75rem 0;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.example { margin: 0; overflow-wrap: anywhere; font-size: .85rem; }
.example img { width: 100%; max-width: 9.5rem; image-rendering: pixelated;
  border: 1px solid var(--rule); }
.swatch { display: inline-block; width: .8em; height: .8em;
  border: 1px solid var(--rule); print-color-adjust: exact; }
.boxes { grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); }
.boxes .example img { max-width: 20rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; } figure, tr { break-inside: avoid; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .scroll { overflow: visible; }
}
"""


def _palette(theme: str) -> str:
  rules = (
    f'.c{i} {{ --c: {c}; }}' for i, c in enumerate(_COLORS[theme].split())
  )
  return ' '.join(rules)


STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
{_palette('light')}
@media screen and (prefers-color-scheme: dark) {{
  :root {{ {_DARK} }}
  {_palette('dark')}
}}
{_RULES}
"""
