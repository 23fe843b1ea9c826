"""The values that flow through every part: emotions, boxes, pictures on disk, labels, and detections.

Plain data with validation and no I/O beyond reading one file. Everything may import this package; it imports `errors`.
"""
