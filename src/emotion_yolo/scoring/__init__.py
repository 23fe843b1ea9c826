"""`emotion-yolo score`: any number of pictures to a folder of Parquet files, by one machine or several.

`listing` finds the pictures, `plan` freezes them to numbered shards, `shards` answers one shard and commits it, `local`
and `on_ray` run workers, `run` ties them together, `stores` reads and writes files. Only the command line imports this
package.
"""
