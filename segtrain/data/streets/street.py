"""The ground plan of a scene."""

from dataclasses import dataclass

import numpy as np

FAR = 85.0  # metres: the last house


@dataclass(frozen=True)
class Street:
    """The ground plan of a scene, in metres.

    Attributes:
        half: Half the width of the road.
        pavements: Widths of the left and of the right pavement.
        greens: Whether there is grass beyond the left and beyond the right pavement.
        crossing: (near, far) ends of a side street, beyond `FAR` where there is none.
        dash: Half the width of the dashed middle line, 0 where there is none.
        kerb_line: Colour (3,) of the lines along the kerbs.
    """

    half: float
    pavements: tuple[float, float]
    greens: tuple[bool, bool]
    crossing: tuple[float, float]
    dash: float
    kerb_line: np.ndarray

    def free(self, z: float, margin: float = 0.0) -> bool:
        """Tells whether a place along the road is outside the side street."""
        return not self.crossing[0] - margin < z < self.crossing[1] + margin


def draw_street(rng: np.random.Generator) -> Street:
    """Chooses the ground plan."""
    start = rng.uniform(14, 45) if rng.random() < 0.5 else 2 * FAR
    left, right = rng.uniform(1.6, 4.2, 2)
    kerb = np.array(((0.75, 0.62, 0.18), (0.8, 0.8, 0.78), (0.3, 0.3, 0.3))[rng.integers(3)])
    green_left, green_right = rng.random(2) < 0.38
    return Street(rng.uniform(3.0, 5.2), (left, right), (bool(green_left), bool(green_right)),
                  (start, start + rng.uniform(6, 9)), (0.0, 0.07, 0.09)[rng.integers(3)], kerb)
