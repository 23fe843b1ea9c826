"""What pyproject.toml cannot say of the wheel: `api/` is installed as `emotion_yolo.api`, the release beside it."""

from setuptools import find_packages, setup

service = find_packages(".", include=["api", "api.*"])

setup(
    packages=[*find_packages("src"), *(f"emotion_yolo.{name}" for name in service), "emotion_yolo.packaged_release"],
    package_dir={"": "src", "emotion_yolo.api": "api", "emotion_yolo.packaged_release": "models/release"},
    package_data={
        "emotion_yolo": ["py.typed"],
        "emotion_yolo.api": ["static/*"],
        "emotion_yolo.packaged_release": [
            "MODEL_CARD.md",
            "metrics.json",
            "model.json",
            "model.onnx",
            "reference.parquet",
        ],
    },
    include_package_data=False,
)
