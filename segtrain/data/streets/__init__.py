"""Synthetic street scenes, the embedded default data.

Everything is laid out in metres and seen through a camera that is relative to the image's size, so that a scene is
the same at any resolution. It is painted at twice that resolution from far to near, then shrunk, hazed and degraded as
by a cheap camera.

World coordinates are metres: x to the right of the road's middle, y up from the ground, z ahead of the camera. Colours
are (red, green, blue) floats, nominally 0..1; images are planes (colours, rows, columns) until OpenCV gets them.
"""

from segtrain.data.streets.scene import draw_scene

__all__ = ["draw_scene"]
