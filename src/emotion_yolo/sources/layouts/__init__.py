"""The layouts of data sets, recognised by the contents of their folders.

`found` is what they are all read into; `yolo`, `coco`, `voc`, `class_folders` and `fer2013` are one format each.
"""

from emotion_yolo.sources.layouts.finding import find_sets, find_table_set, find_yaml_set
from emotion_yolo.sources.layouts.found import FoundSet, Item, Remarks

__all__ = ["FoundSet", "Item", "Remarks", "find_sets", "find_table_set", "find_yaml_set"]
