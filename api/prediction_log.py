"""The prediction log of a service: opened from its settings, counted in its metrics."""

from emotion_yolo.prediction_log.store import LogLimits, Store
from emotion_yolo.prediction_log.writer import LOST, PredictionLog

from .metrics import Metrics
from .settings import Settings


def open_log(settings: Settings, metrics: Metrics) -> PredictionLog | None:
    """Open the log that `EMOTION_LOG_DB` names; None if it is unset."""
    if settings.log_db is None:
        return None
    for reason in LOST:
        metrics.log_rows_lost.labels(reason)  # a rate of a series that is not there yet is no alert
    limits = LogLimits(settings.log_rows, settings.log_bytes, settings.log_days)
    return PredictionLog(
        Store(settings.log_db, limits),
        limits,
        on_written=metrics.log_rows.inc,
        on_lost=lambda reason, count: metrics.log_rows_lost.labels(reason).inc(count),
        on_size=metrics.log_bytes.set,
    )
