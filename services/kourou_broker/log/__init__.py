"""The log of a shard: frames in pre-written segments, committed in groups.

section, frame      the format                      log         append, read, find: what others use
medium, worker      what the log stands on          commit      group commit
file_medium         the real medium                 space       spare segments, the watermark
index, sealing      the index of one segment        queue_index the same over all of them
scan, recovery      at start-up                     repair      by hand
cache, idle_mark    the tail                        lookup      by key, id and time, in a helper process
"""
