"""What S3 and GCS transfers share: planning parts, keeping a window of them under way, moving their bytes."""
