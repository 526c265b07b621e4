#!/usr/bin/env bash
# Makes the Go code of every .proto file, next to it, and the CustomResourceDefinitions. With --check it changes nothing and
# fails where the code in the tree is not what would be made.
set -euo pipefail
cd "$(dirname "$0")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

protoc_dir="$(go run ./cmd/heddle parts fetch protoc | cut -d' ' -f2)"
protoc="$(find "$protoc_dir" -type f -name protoc | head -n 1)"
include="$(dirname "$(find "$protoc_dir" -path '*google/protobuf/any.proto' | head -n 1)")/../.."
GOBIN="$work/bin" go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN="$work/bin" go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0

out="$work/out"
mkdir -p "$out"
# shellcheck disable=SC2046 # no path has a space
PATH="$work/bin:$PATH" "$protoc" -I . -I "$include" \
  --go_out="$out" --go_opt=paths=source_relative \
  --go-grpc_out="$out" --go-grpc_opt=paths=source_relative \
  $(find . -name '*.proto' -not -path './bin/*' | sed 's|^\./||' | sort)

mkdir -p "$out/install/kubernetes/chart/crds"
go run ./tools/crds "$out/install/kubernetes/chart/crds"

status=0
while IFS= read -r file; do
  if [ "${1:-}" != --check ]; then
    cp "$out/$file" "$file"
  elif ! cmp -s "$out/$file" "$file"; then
    echo "$file is not what 'make generate' makes" >&2
    status=1
  fi
done < <(cd "$out" && find . -type f | sed 's|^\./||' | sort)
exit "$status"
