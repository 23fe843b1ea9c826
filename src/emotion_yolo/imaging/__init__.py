"""The one decoder of pictures, for the service, the command line, and every stage of the pipeline.

Files are inspected before a decoder sees them (`inspect`), and are decoded whole or refused (`RefusedImageError`).
The service decodes in separate processes, see `emotion_yolo.isolation`.
"""

from emotion_yolo.imaging.decoding import decode, decode_plan, inspect
from emotion_yolo.imaging.files import read_picture, read_rgb
from emotion_yolo.imaging.plans import LOCAL, ImageLimits, Picture, Pixels, Plan
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError

__all__ = [
    "LOCAL",
    "ImageLimits",
    "Picture",
    "Pixels",
    "Plan",
    "Refusal",
    "RefusedImageError",
    "decode",
    "decode_plan",
    "inspect",
    "read_picture",
    "read_rgb",
]
