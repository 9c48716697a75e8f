// SPDX-License-Identifier: Apache-2.0

package grpcdial

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// adviser adds to what gRPC says of a connection that cannot be used which port,
// flag or file is meant: its own words name none.
type adviser struct {
	target string
	tls    bool
}

func (a adviser) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return a.advise(invoke(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := stream(ctx, desc, cc, method, opts...)
			return s, a.advise(err)
		}),
	}
}

func (a adviser) advise(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	has := func(part string) bool { return strings.Contains(text, part) }
	hint := ""
	_, why, dialled := strings.Cut(status.Convert(err).Message(), "Error while dialing: ")
	switch {
	case dialled:
		why = strings.TrimSuffix(why, `"`)
		if has("connection refused") {
			why += " (nothing listens there: is the control plane running, and is this the address of its serve --xds, 15010 by default?)"
		}
		return status.Errorf(status.Code(err), "%s cannot be reached: %s", a.target, why)
	case has("looked like an HTTP/1.1 header"):
		return status.Errorf(codes.Unavailable, "%s is an HTTP port and no gRPC port: --controlplane (or the bootstrap's xDS cluster) wants the control plane's xDS port, that of its serve --xds (15010 by default), not that of serve --http (15014)", a.target)
	case !a.tls && has("error reading server preface"):
		hint = a.target + " closed the plaintext connection: where that port wants TLS (15012 by default), add --trust-bundle, or use the plaintext port (15010)"
	case a.tls && has("first record does not look like a TLS handshake"):
		hint = a.target + " is a plaintext port; mutual TLS is on that of serve --xds-mtls (15012 by default)"
	case a.tls && has("certificate signed by unknown authority"):
		hint = "the roots of --trust-bundle are not those of " + a.target + ": fetch them anew: controlplane ca bundle"
	default:
		return err
	}
	return status.Error(status.Code(err), status.Convert(err).Message()+" ("+hint+")")
}
