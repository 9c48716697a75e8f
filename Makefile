# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets; .ci/run runs the same ones.

.DEFAULT_GOAL := help
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PKG ?= ./...
FUZZTIME ?= 10s
PROFILE := cmd/sidecar/sidecar.pgo

.PHONY: help build profile test race lint lint-all fuzz bench quickstart harness peers conformance ci generate docker clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build sidecar (guided by its profile) and controlplane into bin/
	CGO_ENABLED=0 go build -trimpath -pgo=$(PROFILE) -o bin/ ./cmd/sidecar
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/controlplane

profile: ## renew the profile that guides builds of the sidecar (what go run ./bench needs, but no Envoy)
	go run ./bench --profile $(PROFILE)

test: ## everything that needs no server of somebody else (PKG=./pkg/lb for one package)
	go test $(PKG)

race: ## the packages around the loops with the race detector
	.ci/run race

lint: ## what CI checks without running code: vet, gofmt, staticcheck, import and source rules
	.ci/run vet format lint
	go test ./internal/archtest

lint-all: ## golangci-lint with .golangci.yml (takes minutes to build once)
	go run $(GOLANGCI) run $(PKG)

fuzz: ## every fuzz target for FUZZTIME (10s)
	FUZZTIME=$(FUZZTIME) FUZZTIME_OTHERS=$(FUZZTIME) .ci/run fuzz

bench: ## sidecar, nginx, HAProxy and Envoy side by side; writes bench/results
	go run ./bench

quickstart: ## control plane, three services, their sidecars and load, until Ctrl-C
	go run ./examples/quickstart

harness: ## go-control-plane's integration harness with sidecar in Envoy's place
	test/harness/run.sh

peers: ## tests with real Envoy, grpc-go and Parquet readers as clients
	.ci/run peers

conformance: ## run every row of docs/CONFORMANCE.md and write the results into it (ROWS="D5 C7" for some)
	go run ./test/conformance $(ROWS)

ci: ## all that CI runs
	.ci/run

generate: ## Go code of the .proto files (needs protoc)
	scripts/generate.sh

docker: ## images outrigger/sidecar and outrigger/controlplane
	docker build --target sidecar --build-arg VERSION=$(VERSION) -t outrigger/sidecar:$(VERSION) -t outrigger/sidecar .
	docker build --target controlplane --build-arg VERSION=$(VERSION) -t outrigger/controlplane:$(VERSION) -t outrigger/controlplane .

clean: ## remove what build made
	rm -rf bin
