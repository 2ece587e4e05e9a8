"""The colours of materials.

Nearly every material shares its colours with another one, so that colour alone does not give the class away.
"""

import numpy as np

STONE = ((0.62, 0.58, 0.52), (0.45, 0.44, 0.43), (0.72, 0.70, 0.66), (0.55, 0.33, 0.26), (0.66, 0.55, 0.40))
PAINT = ((0.85, 0.85, 0.86), (0.09, 0.09, 0.10), (0.48, 0.49, 0.51), (0.55, 0.08, 0.08), (0.10, 0.20, 0.42))
CLOTH = STONE + PAINT + ((0.20, 0.30, 0.18), (0.80, 0.72, 0.20), (0.16, 0.16, 0.24), (0.42, 0.28, 0.40))
LEAVES = ((0.20, 0.30, 0.12), (0.30, 0.34, 0.16), (0.38, 0.30, 0.15), (0.15, 0.22, 0.14))
METAL = ((0.25, 0.26, 0.27), (0.50, 0.51, 0.50), (0.12, 0.17, 0.14), (0.36, 0.33, 0.28))
SIGNS = ((0.75, 0.10, 0.12), (0.10, 0.25, 0.62), (0.88, 0.88, 0.86), (0.85, 0.68, 0.10), (0.10, 0.38, 0.22))
GLASS = np.array((0.10, 0.12, 0.15))
SKIN = np.array((0.75, 0.55, 0.44))


def pick(rng: np.random.Generator, palette: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """Draws a colour near one of a palette: float (3,)."""
    choice, brightness, *tint = rng.random(5).tolist()
    base, factor = palette[int(choice * len(palette))], 0.75 + 0.45 * brightness
    return np.array([channel * factor + 0.07 * (t - 0.5) for channel, t in zip(base, tint, strict=True)])


def tinted(color: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Multiplies a colour (C,) by a picture of brightness (H, W): float32 (C, H, W)."""
    return planar(color) * tone.astype(np.float32, copy=False)


def planar(color: np.ndarray) -> np.ndarray:
    """Shapes a colour (C,) so that it meets the planes of a picture: float32 (C, 1, 1)."""
    return color.astype(np.float32)[:, None, None]
