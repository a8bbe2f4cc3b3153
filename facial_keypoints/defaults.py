"""Names and values that the library takes where nothing is given."""

DEFAULT_NET = "models7"
ALIASES = {"fast": "models7", "accurate": "models8"}
DEFAULT_LAYOUT = "ibug68"
DEFAULT_DETECTOR = "pyramid"
# keeps all true boxes of a permissive Haar cascade on validation frames: python
# benchmarks/confidence.py
MIN_CONFIDENCE = 0.5
TEMPLATES = ("arcface", "ffhq", "eyes")  # of aligned crops
STYLES = ("pose", "head", "spread", "glasses", "blur")  # of drawings, besides points
# the first is what 'auto' takes: all users get the same points, whatever else is installed
# names of devices, and what ONNX Runtime calls them
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
RUNTIMES = {"onnx": ("onnxruntime",), "openvino": ("openvino",), "torch": ("torch",)}
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
