"""Images and masks stretched to a square: the side of the prepared films, then the working size."""

from __future__ import annotations

import cv2
import numpy as np


def resample(image: np.ndarray, side: int) -> np.ndarray:
    """Stretch an image to a square by area (linearly where it must grow).

    Args:
        image: (height, width) uint8 or float32.
        side: Pixels of the result's side.

    Returns:
        (side, side), of the image's type.
    """
    if image.shape == (side, side):
        return image
    grows = image.shape[0] < side or image.shape[1] < side
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)


def resample_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Stretch a mask to a square: pixels of which more than half are covered. Bool in, bool out."""
    if mask.shape == (side, side):
        return mask
    return resample(mask.astype(np.float32), side) > 0.5  # float: OpenCV 5 resizes no bool
