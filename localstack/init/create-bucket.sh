#!/usr/bin/env bash
# LocalStack runs this once it is ready.
set -euo pipefail
awslocal s3 mb s3://checkpoints
