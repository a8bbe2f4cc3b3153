"""Corruptions of gray images: low light, motion blur, sharpening, low resolution."""

import cv2
import numpy as np


def darken(image: np.ndarray, gain: float, noise: np.ndarray) -> np.ndarray:
    """A gray uint8 image with `gain` times its light, and the noise of a camera in gray levels."""
    return np.clip(image * np.float32(gain) + noise, 0, 255).astype(np.uint8)


def sharpen(image: np.ndarray, amount: float, sigma: float) -> np.ndarray:
    """Unsharp masking: the image plus `amount` times what a blur by `sigma` pixels takes away."""
    return cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), sigma), -amount, 0)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """A gray image after JPEG compression of a quality in 1…100."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def low_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Little light and the noise that comes with it, on a gray uint8 image."""
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(1, 5)
    return darken(image, rng.uniform(0.06, 0.3), noise)


def motion_blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A camera that moved by up to an eighth of the crop while it looked."""
    length = max(int(image.shape[0] * rng.uniform(0.03, 0.125)), 2)
    kernel = np.zeros((length, length), np.float32)
    reach, angle = (length - 1) / 2, rng.uniform(0, np.pi)
    ends = [
        tuple(round(reach + sign * reach * f(angle)) for f in (np.cos, np.sin)) for sign in (-1, 1)
    ]
    cv2.line(kernel, *ends, 1)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def oversharpen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The edges of a large photograph, or of a telephone that overdoes them."""
    return sharpen(image, rng.uniform(0.5, 3), 1.5)


def low_resolution_jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A face of 20 to 40 pixels, strongly compressed."""
    small = cv2.resize(image, (int(rng.integers(24, 48)),) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(jpeg(small, int(rng.integers(15, 60))), image.shape[1::-1])


CORRUPTIONS = (low_light, motion_blur, oversharpen, low_resolution_jpeg)
