"""Object stores: local folders, S3, GCS, and whatever else fsspec reaches."""
