"""Colours that people with any colour vision can tell apart, on white and on dark, and that never stand alone.

Categories use the palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), darkened on white and lightened on dark
until each has a contrast of at least 3.2 and 4.5 to 1. Ordered series and heat maps use a ramp from dark violet over blue and green to
yellow whose lightness rises evenly in the OKLab space (Ottosson 2020), so that it reads in grey too.
"""

from __future__ import annotations

import math

LIGHT_GROUND, DARK_GROUND = "#ffffff", "#15181d"

_OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a8a8a", "#f0e442")
_HUES = (305.0, 262.0, 220.0, 175.0, 145.0, 108.0)
_FAMILIES = (255.0, 55.0, 155.0, 345.0, 100.0, 200.0)
"""Hues of families, in degrees."""
NEUTRAL = ("#c4cad3", "#4d5560")
"""What belongs to no family, on light and on dark."""
_CHROMA = (0.13, 0.13, 0.11, 0.12, 0.16, 0.17)


def category(place: int, *, dark: bool = False) -> str:
    """The colour of the n-th category.

    >>> category(0), category(8) == category(0)
    ('#0072b2', True)
    """
    return _with_contrast(_OKABE_ITO[place % len(_OKABE_ITO)], dark=dark)


def ordered(place: int, count: int, *, dark: bool = False) -> str:
    """The colour of the n-th of an ordered series: lightness rises with depth, and stays legible on the ground."""
    share = place / (count - 1) if count > 1 else 0.35
    low, high = (0.58, 0.9) if dark else (0.32, 0.64)
    return _ramp_at(share, low + share * (high - low))


def shade(family: int, place: int, count: int, *, dark: bool = False) -> str:
    """The colour of the n-th of the ordered categories of a family: its hue, early ones near to the ground, late ones far.

    Args:
        family: which of the families.
        place: which of its categories, from 0.
        count: how many it has.
        dark: whether the ground is dark.
    """
    share = place / (count - 1) if count > 1 else 0.5
    lightness = 0.40 + 0.44 * share if dark else 0.86 - 0.48 * share
    return _colour_at(_FAMILIES[family % len(_FAMILIES)], 0.15, lightness)


def on(colour: str) -> str:
    """Black or white, whichever reads better on a colour.

    >>> on("#000000"), on("#f0e442")
    ('#ffffff', '#000000')
    """
    return max("#ffffff", "#000000", key=lambda ink: contrast(ink, colour))


def ramp(share: float) -> str:
    """The colour of a share of a heat map's range, dark for 0 and light for 1.

    >>> luminance(ramp(0.0)) < luminance(ramp(0.5)) < luminance(ramp(1.0))
    True
    """
    share = min(max(share, 0.0), 1.0)
    return _ramp_at(share, 0.27 + share * 0.65)


def luminance(colour: str) -> float:
    """Relative luminance in [0, 1] (WCAG 2)."""
    linear = [_to_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio in [1, 21] (WCAG 2).

    >>> round(contrast("#000000", "#ffffff"), 6)
    21.0
    """
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _with_contrast(colour: str, *, dark: bool) -> str:
    least = 4.5 if dark else 3.2
    ground = DARK_GROUND if dark else LIGHT_GROUND
    toward = 255 if dark else 0
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    for share in range(0, 100, 4):
        mixed = _hex([(part + (toward - part) * share / 100) / 255 for part in parts])
        if contrast(mixed, ground) >= least:
            return mixed
    return _hex([toward / 255] * 3)


def _ramp_at(share: float, lightness: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_HUES) - 1)
    left = min(int(place), len(_HUES) - 2)
    part = place - left
    hue = _HUES[left] + part * (_HUES[left + 1] - _HUES[left])
    chroma = _CHROMA[left] + part * (_CHROMA[left + 1] - _CHROMA[left])
    return _colour_at(hue, chroma, lightness)


def _colour_at(degrees: float, chroma: float, lightness: float) -> str:
    hue = math.radians(degrees)
    while True:  # less chroma until the colour exists in sRGB
        linear = _oklab_to_linear(lightness, chroma * math.cos(hue), chroma * math.sin(hue))
        if all(-1e-4 <= channel <= 1.0001 for channel in linear) or chroma < 1e-3:
            return _hex([_from_linear(channel) for channel in linear])
        chroma *= 0.95


def _oklab_to_linear(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    """OKLab to linear sRGB (Ottosson 2020)."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )


def _to_linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)


def _from_linear(channel: float) -> float:
    channel = min(max(channel, 0.0), 1.0)
    return float(12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055)


def _hex(parts: list[float]) -> str:
    return "#" + "".join(f"{round(min(max(part, 0.0), 1.0) * 255):02x}" for part in parts)
