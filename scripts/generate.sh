#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Generates the Go code of the .proto files in api/. The result is checked in, so
# that building needs no protoc; run this after changing a .proto file.
# Needs protoc (Debian: protobuf-compiler) and Go.
set -eu

GEN_GO=v1.36.12
GEN_GO_GRPC=v1.6.2

cd "$(dirname "$0")/.."
command -v protoc >/dev/null || { echo "generate: protoc is not installed (Debian: apt-get install protobuf-compiler)" >&2; exit 1; }

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN="$bin" go install "google.golang.org/protobuf/cmd/protoc-gen-go@$GEN_GO"
GOBIN="$bin" go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$GEN_GO_GRPC"

for proto in api/sidecar/v1/*.proto; do
	PATH="$bin:$PATH" protoc -I . \
		--go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative \
		"$proto"
done
