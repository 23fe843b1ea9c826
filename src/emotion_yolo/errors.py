"""Every error this project raises on purpose.

    EmotionYoloError            exit 1   anything below; catch this one
    ├── ParamsError             exit 3   params.yaml: an unknown key, a missing one, a value out of range
    ├── SourceError             exit 4   a data source that cannot be reached or fetched
    │   ├── ArchiveError        exit 5   an archive that is empty, damaged, or leaves its folder
    │   ├── LayoutError         exit 6   a folder that is not a YOLO-format set, or has another class table
    │   └── StorageError        exit 7   a disk that is full or may not be written
    ├── DataError               exit 8   a data set that cannot be trained on; lists every finding
    │   ├── LabelError          exit 9   a label line that cannot be read; carries file:line
    │   └── ImageError          exit 10  a picture that cannot be decoded
    ├── ModelError              exit 11  a model file that is missing, damaged, or of another kind
    │   └── ParityError         exit 12  an export whose answers differ from its network's
    ├── TrainingError           exit 13  a training that cannot continue: a data-loading process died
    ├── SettingsError           exit 14  an EMOTION_… variable of the service that cannot be used
    ├── RecipeError             exit 15  a recipe that cannot be run here, or a step of it that failed
    ├── DependencyError         exit 16  a package that is not installed, or does not work on this system
    ├── MonitoringError         exit 17  a prediction log or a reference that cannot be read or compared
    │   └── DriftError          exit 18  pictures or answers that differ from the reference
    └── PromotionError          exit 19  a candidate that is worse than the present model, or cannot be registered

Messages say what, where, what was got, what was expected, and what to do.
"""


class EmotionYoloError(Exception):
    """Base of the tree; `exit_code` is what the command line exits with."""

    exit_code = 1


class ParamsError(EmotionYoloError):
    """A `params.yaml` that does not fit `params.py`."""

    exit_code = 3


class SourceError(EmotionYoloError):
    """A data source that cannot be reached or fetched."""

    exit_code = 4


class ArchiveError(SourceError):
    """An archive that is empty, damaged, or holds entries that leave its folder."""

    exit_code = 5


class LayoutError(SourceError):
    """A folder that is not a YOLO-format data set, or whose class table is another one."""

    exit_code = 6


class StorageError(SourceError):
    """A disk that is full or may not be written."""

    exit_code = 7


class DataError(EmotionYoloError):
    """A data set that cannot be trained on."""

    exit_code = 8


class LabelError(DataError):
    """A label file that cannot be read; the message begins with `file:line`."""

    exit_code = 9


class ImageError(DataError):
    """A picture that cannot be decoded."""

    exit_code = 10


class ModelError(EmotionYoloError):
    """A model file that is missing, damaged, or of another kind."""

    exit_code = 11


class ParityError(ModelError):
    """An exported model whose answers differ from those of its network."""

    exit_code = 12


class TrainingError(EmotionYoloError):
    """A training that cannot continue; finished epochs are kept."""

    exit_code = 13


class SettingsError(EmotionYoloError):
    """An `EMOTION_…` variable of the service that cannot be used."""

    exit_code = 14


class RecipeError(EmotionYoloError):
    """A recipe that cannot be run here, or a step of it that failed."""

    exit_code = 15


class DependencyError(EmotionYoloError):
    """A package or system function that is missing here; the message names the extra that brings it."""

    exit_code = 16


class MonitoringError(EmotionYoloError):
    """A prediction log or a reference that cannot be read, or the two do not belong together."""

    exit_code = 17


class DriftError(MonitoringError):
    """Pictures or answers of a window differ from the reference; the message names the columns."""

    exit_code = 18


class PromotionError(EmotionYoloError):
    """A candidate that is worse than the present model, or a version that cannot be registered or rolled back."""

    exit_code = 19
