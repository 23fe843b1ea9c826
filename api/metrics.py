"""Prometheus metrics. They hold numbers about pictures, never a picture."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from . import logs

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one application, in a separate registry."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "emotion_http_requests_total", "Answered requests.", ("route", "method", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "emotion_http_request_seconds",
            "Time from a request's head to its answer's head.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.streams = Gauge("emotion_streams", "Open streams.", registry=registry)
        self.stream_frames = Counter(
            "emotion_stream_frames_total",
            "Frames of streams by outcome: answered, dropped for a newer one, refused.",
            ("outcome",),
            registry=registry,
        )
        self.stream_ends = Counter(
            "emotion_stream_ends_total",
            "Ended streams by reason: client, drain, bad_frames, or the code of a refusal.",
            ("reason",),
            registry=registry,
        )
        self.rejections = Counter("emotion_rejections_total", "Refusals by code.", ("code",), registry=registry)
        self.phase_seconds = Histogram(
            "emotion_phase_seconds",
            "Time of a picture in each phase: queue, decode, preprocess, inference, postprocess.",
            ("phase",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.waiting = Gauge("emotion_queue_waiting", "Pictures waiting for a worker.", registry=registry)
        self.running = Gauge("emotion_queue_running", "Pictures being processed.", registry=registry)
        self.ready = Gauge("emotion_ready", "1 when the model is loaded and warm.", registry=registry)
        lines = Gauge("emotion_log_lines_dropped", "Log lines that could not be written.", registry=registry)
        lines.set_function(logs.dropped)
        self.model = Gauge("emotion_model_info", "The model served; always 1.", ("name", "version"), registry=registry)
        self.reloads = Counter(
            "emotion_model_reloads_total",
            "Reloads of the model by outcome: loaded, unchanged, refused.",
            ("outcome",),
            registry=registry,
        )
        self.faces = Histogram(
            "emotion_faces_per_picture", "Faces found.", buckets=(0, 1, 2, 3, 5, 10, 20, 50, 100), registry=registry
        )
        self.emotions = Counter("emotion_detections_total", "Faces by emotion.", ("emotion",), registry=registry)
        self.confidence = Histogram(
            "emotion_confidence",
            "Confidence that a detection is a face, 0-1.",
            buckets=tuple(i / 10 for i in range(1, 11)),
            registry=registry,
        )
        self.probability = Histogram(
            "emotion_top_probability",
            "Probability of a face's most probable emotion, 0-1.",
            buckets=tuple(i / 10 for i in range(2, 11)),
            registry=registry,
        )
        self.face_px = Histogram(
            "emotion_face_pixels",
            "Shorter side of a face in px.",
            buckets=(8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self.brightness = Histogram(
            "emotion_input_brightness",
            "Mean value of a picture, 0-255.",
            buckets=(16, 32, 64, 96, 128, 160, 192, 224, 240),
            registry=registry,
        )
        self.megapixels = Histogram(
            "emotion_input_megapixels",
            "Size of a picture in millions of pixels.",
            buckets=(0.1, 0.3, 1, 2, 5, 10, 15, 25),
            registry=registry,
        )
        self.bytes = Histogram(
            "emotion_input_bytes",
            "Size of a picture's file.",
            buckets=(10_000, 50_000, 100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000),
            registry=registry,
        )
        self.log_rows = Counter(
            "emotion_prediction_log_rows_total",
            "Pictures and feedback written to the prediction log.",
            registry=registry,
        )
        self.log_rows_lost = Counter(
            "emotion_prediction_log_lost_total",
            "Pictures and feedback that the prediction log could not take, by reason.",
            ("reason",),
            registry=registry,
        )
        self.log_bytes = Gauge("emotion_prediction_log_bytes", "Size of the prediction log's files.", registry=registry)
        self.kept_pictures = Counter(
            "emotion_kept_pictures_total",
            "Pictures kept for labelling, and those that were not: busy, too_large, failed.",
            ("outcome",),
            registry=registry,
        )
        self.shadow_model = Gauge(
            "emotion_shadow_model_info", "The candidate; always 1.", ("name", "version"), registry=registry
        )
        self.shadow_pictures = Counter(
            "emotion_shadow_pictures_total",
            "Answered pictures drawn for the candidate: scored, busy, too_large, failed, unavailable.",
            ("outcome",),
            registry=registry,
        )
        self.shadow_faces = Counter(
            "emotion_shadow_faces_total",
            "Faces of the pictures scored by the candidate: same, other_name, present_only, candidate_only.",
            ("agreement",),
            registry=registry,
        )
        self.formats = Counter("emotion_inputs_total", "Decoded pictures by format.", ("format",), registry=registry)
