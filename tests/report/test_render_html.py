"""Rendering: the scale of interval charts, values as text, and the contrast of colours."""

import re
from pathlib import Path

import numpy as np

from faceattr.report import render_html
from faceattr.report.render_html import Row, Scale

TEMPLATES = Path(render_html.__file__).with_name("templates")


def test_scale_holds_all_values():
    scale = Scale([Row("a", 0.93, 0.91, 0.95), Row("b", None), Row("c", float("nan"), dots=(0.97,))], 0.9)
    assert scale.ticks[0] <= 0.9 and scale.ticks[-1] >= 0.97 and len(scale.ticks) <= 6
    assert float(scale.at(0.9)[:-1]) >= 0 and float(scale.at(0.97)[:-1]) <= 100
    assert Scale([]).ticks[0] <= 0 and Scale([Row("one", 1.0, 1.0, 1.0)]).ticks[-1] > 0.99


def test_style_colours_of_text_have_contrast():
    style = (TEMPLATES / "style.jinja2").read_text()
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", style))

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return float(
            np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    for name in ("ink", "muted", "accent", "warn"):
        for behind in ("#ffffff", colours["tint"]):
            assert (luminance(behind) + 0.05) / (luminance(colours[name]) + 0.05) >= 4.5, name


def test_values_as_text():
    assert (render_html.number(-0.1234), render_html.number(None), render_html.number(float("nan"))) == (
        "−0.123",
        "–",
        "–",
    )
    assert render_html.interval(0.92, 0.949) == "0.920–0.949" and render_html.interval(-0.1, 0.2) == "−0.100 to 0.200"
    assert render_html.interval(None, 0.2) == "" and render_html.per_cent(0.125) == "12.5%"
    assert render_html.plain({"a": True, "b": [1, 12_345], "c": None}) == "a yes, b 1, 12,345, c –"
