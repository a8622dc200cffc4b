"""How the page looks: nothing is wider than the screen."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --quiet: #57606a; --line: #d9dee3; --soft: #f5f7f9;
  --blue: #0072b2; --orange: #d55e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e9ec; --quiet: #a3abb3; --line: #343a40; --soft: #1d2125;
    --blue: #56b4e9; --orange: #f0924a;
  }
}
*, *::before, *::after { box-sizing: border-box; }
body {
  background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; margin: 0 auto;
  max-width: 62rem; overflow-wrap: anywhere; padding: 2rem clamp(1rem, 4vw, 2.5rem) 4rem;
}
h1 { color: var(--quiet); font-size: 1rem; font-weight: 600; margin: 0 0 0.8rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 1rem; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1.5rem; }
.lead { font-size: clamp(1.2rem, 3.2vw, 1.6rem); line-height: 1.4; margin: 0 0 0.9rem; max-width: 48rem; }
.note, figcaption, caption { color: var(--quiet); font-size: 0.9rem; line-height: 1.45; }
.note { margin: 0.4rem 0; max-width: 48rem; }
figure { margin: 0 0 1.2rem; min-width: 0; }
figcaption { margin-top: 0.3rem; }
img, svg, audio { display: block; max-width: 100%; }
img { height: auto; }
img.pixels { image-rendering: pixelated; }
svg { height: auto; width: 100%; }
svg * { stroke-linecap: butt; stroke-linejoin: round; }
svg.lines { background: var(--soft); border-radius: 4px; }
svg.lines polyline { stroke-width: 1.4; }
audio { margin-top: 0.4rem; width: 100%; }
.row {
  display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr));
}
.tiles {
  display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr));
}
.legend {
  display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; list-style: none; margin: 0.3rem 0 0; padding: 0;
}
.legend li { font-size: 0.9rem; }
.legend span {
  border-radius: 50%; display: inline-block; height: 0.7em; margin-right: 0.4em; width: 0.7em;
}
details { border-top: 1px solid var(--line); padding: 0.8rem 0; }
.folded { border-bottom: 1px solid var(--line); margin-top: 2.5rem; }
summary { cursor: pointer; font-weight: 600; }
table { border-collapse: collapse; margin: 0.8rem 0; table-layout: fixed; width: 100%; }
caption { padding-bottom: 0.3rem; text-align: left; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.8rem 0.25rem 0; vertical-align: top; }
th { font-weight: 500; text-align: left; width: 40%; }
td { font-variant-numeric: tabular-nums; }
"""
