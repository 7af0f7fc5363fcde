"""Keep the best Keras checkpoint in a bucket, without stopping training, without losing one."""
