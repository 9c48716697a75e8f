// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"crypto/x509"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// MaxMessageBytes bounds a message that a sidecar sends; give it to
// grpc.MaxRecvMsgSize. Sidecars keep their batches below a quarter of it.
const MaxMessageBytes = 4 << 20

var errWrongToken = errors.New("authorization: the bearer token is not the one of this control plane, which is in the file token of its --data; nor one of `controlplane ca token`")

func errNoCredentials(certificates bool) error {
	if certificates {
		return errors.New("neither a client certificate nor one bearer token: give the sidecar --token-file with one of `controlplane ca token --service NAME`")
	}
	return errors.New("authorization: want one bearer token: give the sidecar --token-file with one of `controlplane ca token --service NAME`, or the file token of the control plane's --data")
}

// RequireToken is Authenticate with the mesh token only.
//
// Use it for a server that listens anywhere but on loopback or a Unix socket.
func RequireToken(token string) (grpc.ServerOption, error) {
	if token == "" {
		return nil, errors.New("token: must not be empty")
	}
	return Authenticate(Authentication{MeshToken: token}), nil
}

// peerCertificate is the client's certificate, which the handshake has verified;
// nil when there is none.
func peerCertificate(p *peer.Peer) *x509.Certificate {
	if p == nil {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0]
}
