"""Stage `evaluate`: models/export + datasets/prepared (test) → reports/evaluate/, reports/metrics.json."""

from emotion_yolo.evaluation.measuring import Evaluation, measure
from emotion_yolo.evaluation.model_card import CARD_NAME, model_card, used_sets
from emotion_yolo.evaluation.reference import write_reference
from emotion_yolo.evaluation.report import write_json, write_report
from emotion_yolo.evaluation.summary import headline, summary
from emotion_yolo.params import Params, load_params
from emotion_yolo.paths import CARDS, DATA_PIN, EVALUATE_REPORT, EXPORT, METRICS, PREPARED, WANDB
from emotion_yolo.prediction_log.observations import REFERENCE_NAME
from emotion_yolo.stages import run_stage
from emotion_yolo.tracking.tracker import Tracker


def main() -> None:
    """Run the stage from the project's root."""
    params = load_params()
    sets = used_sets(DATA_PIN, CARDS)
    evaluation = measure(params.evaluate, artefact=EXPORT, prepared=PREPARED)
    write_report(evaluation, EVALUATE_REPORT)
    outcomes = [*evaluation.crops, *evaluation.photographs]
    write_reference(EVALUATE_REPORT / REFERENCE_NAME, outcomes, model=evaluation.spec.digest)
    (EVALUATE_REPORT / CARD_NAME).write_text(model_card(evaluation, sets), "utf-8")
    write_json(METRICS, headline(evaluation.overall.metrics))
    track(params, evaluation)
    by_set = {name: measured.metrics for name, measured in evaluation.sets.items()}
    print(summary(evaluation.overall.metrics, evaluation.overall.intervals, by_set))


def track(params: Params, evaluation: Evaluation) -> None:
    """Add test metrics, curves and the model to the W&B run of the training."""
    lineage = evaluation.spec.lineage.model_dump()
    metrics = evaluation.overall.metrics
    by_set = {f"{name}_{key}": v for name, of in evaluation.sets.items() for key, v in of.metrics.items()}
    with Tracker.reopen(params, weights=lineage["weights"], wandb_dir=WANDB, lineage=lineage) as tracker:
        tracker.log_summary({f"test_{name}": value for name, value in {**metrics, **by_set}.items()})
        for name in ("confusion", "pr", "reliability", "sets", "sources", "heights"):
            tracker.log_table(name, EVALUATE_REPORT / f"{name}.csv")
        # Pictures from research-only sets: the run that they go to is the user's own.
        for name in ("gallery", "detections"):
            tracker.log_image(name, EVALUATE_REPORT / f"{name}.jpg")
        metadata = {"version": evaluation.spec.version, **lineage, **headline(metrics)}
        tracker.log_model(EXPORT, name=evaluation.spec.name, metadata=metadata)


if __name__ == "__main__":
    run_stage(main)
