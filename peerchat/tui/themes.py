"""The two themes of the app; Textual's own can be picked in the palette besides."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="peerchat-dark",
    primary="#5fd7c4",
    secondary="#8fb8ff",
    accent="#ffb86b",
    foreground="#d8dee6",
    background="#0e1318",
    surface="#141b22",
    panel="#1c252e",
    success="#7bd88f",
    warning="#f2c46d",
    error="#ff7b72",
    dark=True,
    variables={
        "border": "#33424f",
        "border-blurred": "#26323c",
        "input-selection-background": "#5fd7c4 30%",
    },
)

LIGHT = Theme(
    name="peerchat-light",
    primary="#00796b",
    secondary="#2457a6",
    accent="#b25b00",
    foreground="#1d262e",
    background="#fbfaf7",
    surface="#f2f0eb",
    panel="#e6e3dc",
    success="#23813b",
    warning="#9a6200",
    error="#b3261e",
    dark=False,
    variables={
        "border": "#b9b4a8",
        "border-blurred": "#d2cec4",
        "input-selection-background": "#00796b 25%",
    },
)
