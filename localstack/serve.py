"""Run an S3 server and a Google Cloud Storage server until Ctrl-C, and tell how to reach them.

Started by `localstack/start`, with the interpreter of the servers' own virtual environment.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import ExitStack

from remote_ckpt.testing.servers import Server, ServerStartError, start_fake_gcs, start_localstack, start_seaweedfs

# What an example needs; the rest of `Server.environment` only spares it a look for other credentials.
S3_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
GCS_VARIABLES = ("STORAGE_EMULATOR_HOST", "FSSPEC_GS_TOKEN", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT")


def main() -> int:
    """Return 0 after Ctrl-C or SIGTERM, 1 when a server could not be started or ended by itself."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with ExitStack() as running:
            print("Starting …", flush=True)
            start_s3 = start_seaweedfs if arguments.seaweedfs else start_localstack
            s3 = running.enter_context(start_s3(port=arguments.port, bucket=arguments.bucket))
            gcs = running.enter_context(start_fake_gcs(port=arguments.gcs_port, bucket=arguments.bucket))
            tell(s3, "S3", S3_VARIABLES)
            tell(gcs, "Google Cloud Storage", GCS_VARIABLES)
            print("\nCtrl-C stops both, and forgets what they hold.", flush=True)
            return watch(s3, gcs)
    except ServerStartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="localstack/start", description="S3 and GCS on this machine, without Docker.")
    parser.add_argument("--port", type=int, default=4566, help="of S3 (%(default)s)")
    parser.add_argument("--gcs-port", type=int, default=4443, help="of Google Cloud Storage (%(default)s)")
    parser.add_argument("--bucket", default="checkpoints", help="a bucket to make in each (%(default)s)")
    parser.add_argument("--seaweedfs", action="store_true", help="SeaweedFS, which checks secrets, for S3")
    return parser.parse_args()


def tell(server: Server, service: str, variables: tuple[str, ...]) -> None:
    """Print the lines that point an example at `server`."""
    print(f"\n# {service} ({server.name}): {server.url('')}")
    for name in variables:
        print(f"export {name}={server.environment[name]}")


def watch(*servers: Server) -> int:
    """Return 1 as soon as one of `servers` has ended by itself."""
    while True:
        for server in servers:
            if server.process.exit_status is not None:
                print(f"{server.name} has ended:\n{server.process.log_tail()}", file=sys.stderr)
                return 1
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
