"""Videos and cameras: frames with their times, annotated copies with the original timing and sound.

Decoding and encoding is PyAV's (extra `video`). Only `predict` and the command line import this package.
"""
