"""The page's files and Content Security Policies, shared by the service and `emotion-yolo export-web`."""

from emotion_yolo.inference.artefact import SPEC_NAME

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Files of the package's folder `dist`, with their SHA-256."""

DEVICE = "device"
"""Folder of `DEVICE_FILES`, with which the page finds faces in the browser."""
NETWORK = "model.onnx"
DEVICE_FILES = (*RUNTIME_FILES, SPEC_NAME, NETWORK)
PAGE_FILES = ("page.js", "camera.js", "draw.js", "device.js", "network.js", "style.css", "icon.svg")
"""Files of `static/` that the page loads, besides the page itself."""

MARK = "<html"
"""Followed in the page by the attributes that say what is available: `data-device`, `data-serverless`."""

_SERVER = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
)
# WebAssembly; `wasm-unsafe-eval` allows no script from elsewhere.
_DEVICE = _SERVER.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'")
_UNFRAMED = "; frame-ancestors 'none'"

SERVER_CSP = _SERVER + _UNFRAMED
"""Header of pages that leave everything to the server."""
DEVICE_CSP = _DEVICE + _UNFRAMED
"""Header of pages that can find faces in the browser."""
DEVICE_META_CSP = _DEVICE
"""The same for a `meta` element, in which browsers ignore `frame-ancestors`."""
