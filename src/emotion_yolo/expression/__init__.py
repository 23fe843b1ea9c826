"""Networks that name the expression of a single face crop: architecture, training, ONNX inference.

They teach the detector and are its baselines. Only `classifier` is imported at inference, and needs no torch.
"""
