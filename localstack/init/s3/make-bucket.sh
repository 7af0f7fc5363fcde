#!/bin/sh
# LocalStack runs this once it is ready.
set -e
awslocal s3api head-bucket --bucket checkpoints 2>/dev/null || awslocal s3 mb s3://checkpoints
