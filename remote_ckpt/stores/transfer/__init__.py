"""Code for transfers to S3 and GCS alike: plan parts, run a window of transfers, move the bytes."""
