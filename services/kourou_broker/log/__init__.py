"""The log of a shard: frames in pre-written segments, committed in groups.

    section, frame      the format                      log         append, read, find: what others use
    medium, worker      what the log stands on          commit      group commit
    file_medium         the real medium                 index       where the messages of a queue are
    recovery, repair    at start, and by hand           lookup      offline, by key, id and time
"""
