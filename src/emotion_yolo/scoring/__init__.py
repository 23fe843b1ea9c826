"""`emotion-yolo score`: any number of pictures to a folder of Parquet files, by one machine or several.

`listing` finds the pictures, `plan` freezes them to numbered shards, `shards` answers one shard and commits it, `local`
and `on_ray` have workers do so, `run` ties them together, `stores` is where files lie. Only the command line imports
this package.
"""
