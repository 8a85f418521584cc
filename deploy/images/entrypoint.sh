#!/bin/sh
# Puts the token of Milvus into a worker's environment, then starts Beam's own boot program.
set -eu
if [ -n "${MILVUS_TOKEN_SECRET:-}" ]; then
  MILVUS_TOKEN="$(python -c '
import sys
from google.cloud import secretmanager
secret = secretmanager.SecretManagerServiceClient().access_secret_version(name=sys.argv[1])
print(secret.payload.data.decode(), end="")
' "$MILVUS_TOKEN_SECRET")"
  export MILVUS_TOKEN
fi
exec /opt/apache/beam/boot "$@"
