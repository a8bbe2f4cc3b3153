"""Faces sent to programs that move an avatar, by the VMC protocol (https://protocol.vmc.info)."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from facial_keypoints.errors import import_optional

if TYPE_CHECKING:
    from facial_keypoints.detector import Face
    from facial_keypoints.face_model import FaceFit


class VmcWriter:
    """Sends each frame's first face, that of the lowest identity: one bundle with the value of each
    expression, and the rotation of the head. A frame without faces sends nothing, so the avatar
    keeps its last expression.

    Expressions have the names of ARKit with a capital, as the avatars' blend shape clips for
    "perfect sync" have them; receivers ignore the case or take it so. The head bone is in Unity's
    coordinates of an avatar that looks along z: x to its right, y up (left-handed).
    """

    def __init__(self, host: str, port: int):
        import_optional("pythonosc", "--vmc", "python-osc>=1.8")
        from pythonosc import udp_client

        self.client = udp_client.SimpleUDPClient(host, port)
        self.start = time.monotonic()

    def write(self, name: str, size: Sequence[int], faces: Sequence["Face"]) -> None:
        if faces:
            face = min(faces, key=lambda face: face.identity or 0)
            self.client.send(bundle(face.fit_3d(), time.monotonic() - self.start))

    def close(self) -> None:
        """Nothing to finish."""


def bundle(fit: "FaceFit", seconds: float) -> Any:
    """The OSC bundle of a fitted face."""
    from pythonosc import osc_bundle_builder, osc_message_builder

    built = osc_bundle_builder.OscBundleBuilder(osc_bundle_builder.IMMEDIATELY)
    rows: list[tuple] = [("/VMC/Ext/OK", 1), ("/VMC/Ext/T", float(seconds))]
    rows.append(("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, *head_quaternion(fit.pose.rotation)))
    for name, value in fit.expressions.items():
        rows.append(("/VMC/Ext/Blend/Val", name[0].upper() + name[1:], float(value)))
    for address, *values in [*rows, ("/VMC/Ext/Blend/Apply",)]:
        message = osc_message_builder.OscMessageBuilder(address)
        for value in values:
            message.add_arg(value)
        built.add_content(message.build())
    return built.build()


def head_quaternion(rotation: np.ndarray) -> tuple[float, ...]:
    """Rotation (3, 3) of a head in camera coordinates -> quaternion x, y, z, w in Unity's.

    All three axes of the camera point the other way than those of an avatar that looks into it, so
    the matrix stays the same. Shepperd's method (Journal of Guidance and Control 1978).
    """
    m = np.asarray(rotation, np.float64)
    squares = np.array(
        [
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
            1 + m[0, 0] + m[1, 1] + m[2, 2],
        ]
    )
    x, y, z, w = squares
    rows = [
        (x, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]),
        (m[0, 1] + m[1, 0], y, m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]),
        (m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], z, m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], w),
    ]
    chosen = np.array(rows[int(squares.argmax())])
    return tuple((chosen / np.linalg.norm(chosen)).tolist())
