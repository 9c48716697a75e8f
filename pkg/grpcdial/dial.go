// SPDX-License-Identifier: Apache-2.0

package grpcdial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// The defaults of a Config.
const (
	DefaultMinBackoff     = 500 * time.Millisecond
	DefaultMaxBackoff     = 30 * time.Second
	DefaultConnectTimeout = 5 * time.Second
	// DefaultMaxReceiveBytes is room for an answer of a large mesh: the state of the
	// world puts every cluster in one message.
	DefaultMaxReceiveBytes = 64 << 20
)

// Servers commonly refuse pings that come more often than every 30 s.
const (
	keepaliveTime    = 45 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// Config says where and how to dial.
type Config struct {
	// Target is HOST:PORT or unix:PATH.
	Target string
	// Alternatives are tried in their order where Target, and the one before, cannot
	// be reached: another endpoint of the same service.
	Alternatives []string
	// TokenFile holds the bearer token, read anew for each stream so that it can be
	// replaced while the sidecar runs. Empty: no token is sent.
	TokenFile string
	// AllowPlaintext permits addresses that are neither loopback nor a Unix socket.
	AllowPlaintext bool
	// TLS, where given, protects the connection; any address may then be dialled.
	TLS *tls.Config
	// Reconnection waits between these, with jitter; 0 means the default.
	MinBackoff, MaxBackoff time.Duration
	ConnectTimeout         time.Duration
	// MaxReceiveBytes bounds one received message; 0 means the default.
	MaxReceiveBytes int
	UserAgent       string
}

// Dial makes a connection that connects when it is first used and comes back by
// itself. It fails only on a Config that can never work; the caller closes it.
func Dial(c Config) (*grpc.ClientConn, error) {
	target, err := checkTarget(c)
	if err != nil {
		return nil, err
	}
	setDefault(&c.MinBackoff, DefaultMinBackoff)
	setDefault(&c.MaxBackoff, DefaultMaxBackoff)
	setDefault(&c.ConnectTimeout, DefaultConnectTimeout)
	if c.MaxReceiveBytes == 0 {
		c.MaxReceiveBytes = DefaultMaxReceiveBytes
	}
	dialer := dialer(c.anyAddress())
	transport := insecure.NewCredentials()
	if c.TLS != nil {
		transport = credentials.NewTLS(c.TLS)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		// A dialer of our own also keeps gRPC from an HTTP proxy of the environment,
		// which beside a sidecar is likely the sidecar itself.
		grpc.WithContextDialer(dialer),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: c.MinBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: c.MaxBackoff},
			MinConnectTimeout: c.ConnectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(c.MaxReceiveBytes)),
		grpc.WithDisableServiceConfig(), // never from DNS
	}
	options = append(options, adviser{c.Target, c.TLS != nil}.options()...)
	if c.UserAgent != "" {
		options = append(options, grpc.WithUserAgent(c.UserAgent))
	}
	if c.TokenFile != "" {
		options = append(options, grpc.WithPerRPCCredentials(tokenFile(c.TokenFile)))
	}
	if len(c.Alternatives) > 0 {
		r, err := inOrder(c)
		if err != nil {
			return nil, err
		}
		target = r.Scheme() + ":///" + c.Target
		options = append(options, grpc.WithResolvers(r), grpc.WithAuthority(authority(c.Target)))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", c.Target, err)
	}
	return conn, nil
}

func (c *Config) anyAddress() bool { return c.AllowPlaintext || c.TLS != nil }

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// checkTarget finds at once what a look at the text can find, and returns the
// target in gRPC's form.
func checkTarget(c Config) (string, error) {
	if path, ok := strings.CutPrefix(c.Target, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return "", fmt.Errorf("dial %q: want a path in unix:PATH", c.Target)
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return "", fmt.Errorf("dial %q: %w", c.Target, err)
		}
		return "unix://" + absolute, nil
	}
	host, port, err := net.SplitHostPort(c.Target)
	if err != nil || host == "" || port == "" {
		return "", fmt.Errorf("dial %q: want HOST:PORT or unix:PATH", c.Target)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if err := checkAddr(addr, c.anyAddress()); err != nil {
			return "", fmt.Errorf("dial %s: %w", c.Target, err)
		}
	}
	return "dns:///" + c.Target, nil
}

// The errors by which an address is refused.
var (
	ErrForbiddenAddress = errors.New("link-local, multicast, unspecified and metadata addresses are never dialled")
	ErrPlaintext        = errors.New("plaintext to another address than loopback needs TLS (--trust-bundle), or must be allowed (--insecure-xds)")
)

// metadataAddrs are the instance metadata services that are not link-local.
var metadataAddrs = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
}

// checkAddr decides on an address as it will be connected to, so that a name
// cannot lead where an address may not.
func checkAddr(addr netip.Addr, plaintext bool) error {
	addr = addr.Unmap().WithZone("")
	if addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() {
		return ErrForbiddenAddress
	}
	for _, m := range metadataAddrs {
		if addr == m {
			return ErrForbiddenAddress
		}
	}
	if !plaintext && !addr.IsLoopback() {
		return ErrPlaintext
	}
	return nil
}

func dialer(plaintext bool) func(context.Context, string) (net.Conn, error) {
	d := &net.Dialer{Control: func(network, address string, _ syscall.RawConn) error {
		if network == "unix" {
			return nil
		}
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %q: %w", address, err)
		}
		return checkAddr(ap.Addr(), plaintext)
	}}
	return func(ctx context.Context, address string) (net.Conn, error) {
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			return d.DialContext(ctx, "unix", strings.TrimPrefix(path, "//"))
		}
		return d.DialContext(ctx, "tcp", address)
	}
}

// maxTokenBytes bounds what is read of a token file.
const maxTokenBytes = 16 << 10

// tokenFile sends the bearer token in a file with each call.
type tokenFile string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := ReadToken(string(f))
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Plaintext is
// decided on by Config.AllowPlaintext.
func (tokenFile) RequireTransportSecurity() bool { return false }

// ReadToken reads a bearer token: one line without spaces.
func ReadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	if info.Size() > maxTokenBytes {
		return "", fmt.Errorf("token file %s: %d bytes, the limit is %d", path, info.Size(), maxTokenBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("token file %s: is empty", path)
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return "", fmt.Errorf("token file %s: want one line of visible ASCII characters", path)
		}
	}
	return token, nil
}
