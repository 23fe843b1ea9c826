"""`/v1/model`: the card of the model served."""

import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends

from api.problems import Code
from api.routes.deps import ThisApp, admit
from api.schemas import ModelCard, model_name, problem_responses

METRICS_NAME = "metrics.json"
INTENDED_USE = (
    "Research and demonstration: finding faces in pictures and naming the expression that raters would see. "
    "An expression is not a feeling. Not for decisions about people; inferring emotions at work or in schools is "
    "banned in the EU (AI Act, Art. 5(1)(f)), elsewhere tell the people exposed (Art. 50(3))."
)

router = APIRouter(prefix="/v1", tags=["model"])


@router.get(
    "/model",
    summary="What model is this?",
    dependencies=[Depends(admit)],
    responses=problem_responses(
        Code.UNAUTHORIZED, Code.RATE_LIMITED, Code.NOT_READY, Code.OVERLOADED, Code.INTERNAL_ERROR
    ),
)
async def model(app: ThisApp) -> ModelCard:
    """Describe the model that answers: classes, thresholds, metrics, origin, licence, intended use."""
    detector = app.engine.detector
    spec = detector.spec
    measured = read_metrics(app.settings.model)
    return ModelCard.model_validate(
        {
            **model_name(spec).model_dump(),
            "classes": list(spec.classes),
            "licence": spec.licence,
            "intended_use": INTENDED_USE,
            "input_px": detector.imgsz,
            "backend": detector.backend,
            "conf": spec.thresholds.conf,
            "iou": spec.thresholds.iou,
            "ios": spec.thresholds.ios,
            "data": spec.lineage.data,
            "revision": spec.lineage.revision,
            "metrics_split": None if measured is None else measured.get("split", "test"),
            "metrics": measured,
        }
    )


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return what `metrics.json` beside the artefact says, or None."""
    try:
        measured = json.loads((folder / METRICS_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return measured if isinstance(measured, dict) else None
