"""The exported network at inference: artefact, letterbox, decoding, backends, detector, calibration. No torch.

All that the service needs of this package's parent; the pipeline evaluates and localises with the same code.
"""
