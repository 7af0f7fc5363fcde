"""From a model to the bucket: writer, pipeline, spool, publisher, and the drain before the interpreter ends."""
