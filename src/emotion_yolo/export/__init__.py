"""From trained weights to an artefact that can be served: ONNX storage, parity with PyTorch, fitting on valid.

`artefact` is the whole of it, `parity` and `fitting` its parts. Only the stage `export` imports this package.
"""
