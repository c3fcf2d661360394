"""All three services in one process: `kourou dev`."""
