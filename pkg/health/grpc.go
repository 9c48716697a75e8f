// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// answerBytes bounds an answer to a check of gRPC.
const answerBytes = 64 << 10

// watched notes whether its reads have failed: a status of gRPC does not say whether it
// came from the host or for want of a connection.
type watched struct {
	net.Conn
	failed atomic.Bool
}

// Read implements net.Conn.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.failed.Store(true)
	}
	return n, err
}

var errOneConnection = errors.New("the connection of the check has ended")

// callOn makes calls of gRPC go over a connection, and over no other.
func callOn(c net.Conn, authority string) (*grpc.ClientConn, error) {
	var taken atomic.Bool
	return grpc.NewClient("passthrough:///health-check",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // c is secured already
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if taken.Swap(true) {
				return nil, errOneConnection
			}
			return c, nil
		}),
		grpc.WithAuthority(authority), grpc.WithUserAgent(userAgent), grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(), grpc.WithIdleTimeout(0), grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10), grpc.WithMaxHeaderListSize(headBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answerBytes)),
	)
}

// askGRPC calls grpc.health.v1.Health/Check.
func (a *attempt) askGRPC(ctx context.Context, l *link) (r Result, keep bool, err error) {
	if l.grpc == nil {
		l.conn = &watched{Conn: l.conn}
		if l.grpc, err = callOn(l.conn, l.to.authority); err != nil {
			return r, false, err
		}
	}
	var about []string
	for _, v := range a.check.Headers {
		about = append(about, strings.ToLower(v.Name), v.Value)
	}
	answer, err := healthv1.NewHealthClient(l.grpc).Check(metadata.AppendToOutgoingContext(ctx, about...), &healthv1.HealthCheckRequest{Service: a.check.Service})
	switch {
	case ctx.Err() != nil:
		return r, false, ctx.Err()
	case err != nil && l.conn.(*watched).failed.Load():
		return r, false, noEOF(err)
	}
	l.read = true
	switch {
	case err != nil:
		return Result{Outcome: Refused, Reason: "gRPC status " + status.Code(err).String() + ": " + brief(errors.New(status.Convert(err).Message()))}, true, nil
	case answer.GetStatus() != healthv1.HealthCheckResponse_SERVING:
		return Result{Outcome: Refused, Reason: answer.GetStatus().String()}, true, nil
	}
	return Result{Outcome: Passed}, true, nil
}
