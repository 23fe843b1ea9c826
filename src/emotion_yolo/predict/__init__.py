"""`emotion-yolo predict`: pictures, folders, videos and cameras through the detector, one record a picture or frame.

`sources` finds the inputs and reports what it skips, `copies` writes annotated copies that replace nothing,
`tracks` follows faces through videos, `summary` sums up each track, `run` is the loop. Only the
command line imports this package.
"""
