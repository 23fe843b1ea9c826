"""The service one writes first: FastAPI and `YOLO.predict`. The benchmark's other side."""

import io
import os
from typing import Any

from fastapi import FastAPI, UploadFile
from PIL import Image
from ultralytics import YOLO

app = FastAPI()
model = YOLO(os.environ["NAIVE_WEIGHTS"])
imgsz = int(os.environ["NAIVE_IMGSZ"])
model.predict(Image.new("RGB", (64, 64)), imgsz=imgsz, verbose=False)


@app.get("/readyz")
def readyz() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/v1/detect")
def detect(file: UploadFile) -> dict[str, Any]:
    image = Image.open(io.BytesIO(file.file.read())).convert("RGB")
    result = model.predict(image, imgsz=imgsz, conf=0.25, verbose=False)[0]
    return {
        "detections": [
            {"box": box.xyxy[0].tolist(), "emotion": result.names[int(box.cls)], "confidence": float(box.conf)}
            for box in result.boxes
        ]
    }
