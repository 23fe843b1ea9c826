"""From trained weights to an artefact that can be served: ONNX storage, parity with PyTorch, fitting on valid.

Only the stage `export` and trainings that end in an ONNX file import this package.
"""
