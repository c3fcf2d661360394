"""The broker's doors: a door turns protobuf into an operation and its outcome into protobuf, nothing else."""
