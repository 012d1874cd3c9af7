"""Text in pictures. DejaVu Sans, which Matplotlib brings, lacks Chinese, Japanese, Korean, Thai and others: they are drawn with a
font of the system that has them; where none has, as their codes, never as empty boxes. An HTML report leaves this to the browser.
"""

import logging
import re
from functools import cache, lru_cache
from pathlib import Path

from matplotlib import get_data_path
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

log = logging.getLogger(__name__)

DEJAVU = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(maxsize=1024)
def drawable(text: str) -> tuple[str, tuple[Path, ...]]:
    """`text` as it can be drawn, and the font files that have what DejaVu Sans lacks of it; none, where it has all.

    A character that no font has becomes its code: 男性 → [U+7537 U+6027]. That is logged.
    """
    lacking = frozenset(sign for sign in text if sign.isprintable()) - _signs(DEJAVU, frozenset(text))
    if not lacking:
        return text, ()
    files = _fallbacks(lacking)
    missing = lacking.difference(*(_signs(file, lacking) for file in files))
    runs = f"[{re.escape(''.join(sorted(missing)))}]+"
    return (re.sub(runs, lambda run: _codes(run[0]), text) if missing else text), files


def use_fonts(figure: Figure) -> None:
    """Makes all texts of a figure drawable."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if (shown := [drawable(label)[0] for label in labels]) != labels:
            axis.set_ticklabels(shown)
    for text in figure.findobj(Text):
        shown_text, files = drawable(text.get_text())
        if files:
            text.set(
                fontfamily=[*text.get_fontfamily(), *map(_family, files)], fontweight="normal"
            )  # many have no other
        if shown_text != text.get_text():
            text.set_text(shown_text)


def _signs(file: Path, signs: frozenset[str]) -> frozenset[str]:
    """Those of `signs` that the font has; none where it cannot be read, or is one of pictures (colour emoji)."""
    try:
        font = FT2Font(str(file))
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(sign for sign in signs if font.scalable and font.get_char_index(ord(sign)))


@cache
def _fallbacks(signs: frozenset[str]) -> tuple[Path, ...]:
    """Fonts of the system that have as many of `signs` as any: each has the most of what the ones before it lack."""
    files = sorted(
        map(Path, findSystemFonts()), key=lambda file: ("Regular" not in file.name, "Serif" in file.name, file)
    )
    present = {file: _signs(file, signs) for file in files if "LastResort" not in file.name}  # it has boxes only
    chosen: list[Path] = []
    while signs:
        best = max(present, key=lambda file: len(present[file] & signs), default=None)
        if best is None or not present[best] & signs:
            break
        chosen.append(best)
        signs -= present[best]
    return tuple(chosen)


@cache
def _family(file: Path) -> str:
    """The family name under which Matplotlib finds the font."""
    fontManager.addfont(file)  # it may have been installed after Matplotlib made its list
    return fontManager.ttflist[-1].name


@cache
def _codes(signs: str) -> str:
    codes = f"[{' '.join(f'U+{ord(sign):04X}' for sign in signs)}]"
    log.warning(
        "Pictures show %s as %s: no font here has these characters. Install one, such as Noto Sans CJK; report.html needs none",
        *(signs, codes),
    )
    return codes
