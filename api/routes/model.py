"""`/v1/model`: the card of the model served."""

from fastapi import APIRouter, Depends

from ..problems import Code
from ..schemas import ModelCard, model_name, problem_responses
from .deps import ThisApp, identify

INTENDED_USE = (
    "Research and demonstration: finding faces in pictures and naming the expression that raters would see. "
    "An expression is not a feeling. Not for decisions about people; inferring emotions at work or in schools is "
    "banned in the EU (AI Act, Art. 5(1)(f)), elsewhere tell the people exposed (Art. 50(3))."
)

router = APIRouter(prefix="/v1", tags=["model"])


@router.get(
    "/model",
    summary="What model is this?",
    dependencies=[Depends(identify)],
    responses=problem_responses(Code.UNAUTHORIZED, Code.NOT_READY, Code.INTERNAL_ERROR),
)
async def model(app: ThisApp) -> ModelCard:
    """Describe the model that answers: classes, thresholds, metrics, origin, licence, intended use."""
    detector = app.engine.detector
    spec = detector.spec
    measured = app.engine.measured
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
