#!/bin/sh
# Fails when committed generated files differ from what their sources give.
set -eu
cd "$(dirname "$0")/.."
bin="$PWD/.venv/bin"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc -I proto --python_out="$fresh" --mypy_out="quiet:$fresh" \
    --grpc_python_out="$fresh" --mypy_grpc_out="quiet:$fresh" proto/nearshore/v1/*.proto
for file in "$fresh"/nearshore/v1/*; do
    cmp -s "$file" "server/nearshore/v1/$(basename "$file")" ||
        { echo "server/nearshore/v1/$(basename "$file") is stale: run make proto and commit"; exit 1; }
done

mkdir "$fresh/docs"
"$bin/python" -m nearshore.cli.reference "$fresh/docs"
for file in "$fresh"/docs/*; do
    cmp -s "$file" "docs/$(basename "$file")" ||
        { echo "docs/$(basename "$file") is stale: run make docs and commit"; exit 1; }
done
echo "generated files are fresh"
