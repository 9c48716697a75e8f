# SPDX-License-Identifier: Apache-2.0
# syntax=docker/dockerfile:1
#
#   docker build --target sidecar -t outrigger/sidecar .
#   docker build --target controlplane -t outrigger/controlplane .
#
# The images hold one static program, certificate authorities for exporters, and an
# empty /data; there is no shell, and nothing runs as root.

ARG GO_VERSION=1.26.8

FROM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ENV CGO_ENABLED=0
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -ldflags="-s -w" -pgo=cmd/sidecar/sidecar.pgo -o /out/ ./cmd/sidecar && \
    go build -trimpath -ldflags="-s -w" -o /out/ ./cmd/controlplane ./examples/quickstart/service
RUN mkdir -m 0700 /data

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
WORKDIR /

FROM base AS sidecar
COPY --from=build /out/sidecar /sidecar
VOLUME /data
EXPOSE 15006
ENTRYPOINT ["/sidecar", "--data", "/data"]

# The sidecar with nft, as root, for init containers that run `intercept` with
# NET_ADMIN and end; see examples/compose/intercept.yml.
FROM alpine:3.22 AS intercept
RUN apk add --no-cache nftables
COPY --from=build /out/sidecar /sidecar
ENTRYPOINT ["/sidecar", "intercept"]

FROM base AS controlplane
COPY --from=build /out/controlplane /controlplane
VOLUME /data
EXPOSE 15010 15014
ENTRYPOINT ["/controlplane"]
CMD ["serve", "--data", "/data"]

# One of the three small services of examples/quickstart.
FROM base AS service
COPY --from=build /out/service /service
ENTRYPOINT ["/service"]
