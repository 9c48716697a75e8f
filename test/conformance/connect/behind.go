// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
)

// behindCommand makes this program a server for the suite: it starts the real one
// and sidecars in front of it, and names the first sidecar's address as its own.
const behindCommand = "behind"

const (
	maxMessage = 1 << 20
	startLimit = 20 * time.Second
)

// Fields of ServerCompatRequest, ServerCompatResponse and TLSCreds of the suite's
// server_compat.proto and config.proto.
const (
	requestProtocol = 1
	requestVersion  = 2
	requestTLS      = 4
	requestCreds    = 7
	responseHost    = 1
	responsePort    = 2
	responseCert    = 3
	credsCert       = 1
	credsKey        = 2

	protocolWeb = 3 // PROTOCOL_GRPC_WEB
	version2    = 2 // HTTP_VERSION_2
)

func behind(args []string) error {
	if len(args) < 3 {
		return errors.New("want HOPS, SIDECAR and the command of the server")
	}
	way, err := parseWay(args[0])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	dir, err := os.MkdirTemp("", "outrigger-behind")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	request, err := readMessage(os.Stdin)
	if err != nil {
		return err
	}
	if way.web && number(request, requestProtocol) == protocolWeb {
		// Whatever the client speaks, calls of gRPC go on by HTTP/2. The last value counts.
		request = protowire.AppendVarint(protowire.AppendTag(request, requestVersion, protowire.VarintType), version2)
	}
	server, response, err := startServer(ctx, args[2:], request)
	if err != nil {
		return err
	}
	defer end(server)
	link := link{dir: dir, web: way.web, upstream: net.JoinHostPort("127.0.0.1", strconv.FormatUint(number(response, responsePort), 10))}
	if number(request, requestTLS) != 0 {
		creds := field(request, requestCreds)
		if err := link.saveCredentials(field(creds, credsCert), field(creds, credsKey), field(response, responseCert)); err != nil {
			return err
		}
	}
	for i := way.sidecars - 1; i >= 0; i-- {
		sidecar, address, err := link.start(ctx, args[1], i == 0, i == way.sidecars-1)
		if err != nil {
			return err
		}
		defer end(sidecar)
		link.upstream = address
	}
	if err := answer(os.Stdout, link.upstream, field(request, requestCreds)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// startServer runs the real server with the request, and returns what it answered.
func startServer(ctx context.Context, argv []string, request []byte) (*exec.Cmd, []byte, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(writeMessage(in, request), in.Close()); err != nil {
		end(cmd)
		return nil, nil, err
	}
	response, err := readMessage(out)
	if err != nil {
		end(cmd)
		return nil, nil, fmt.Errorf("the server's answer: %w", err)
	}
	return cmd, response, ctx.Err()
}

// answer tells the suite where to go, and which certificate to trust there.
func answer(w io.Writer, address string, creds []byte) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	b := protowire.AppendString(protowire.AppendTag(nil, responseHost, protowire.BytesType), host)
	b = protowire.AppendVarint(protowire.AppendTag(b, responsePort, protowire.VarintType), n)
	if cert := field(creds, credsCert); cert != nil {
		b = protowire.AppendBytes(protowire.AppendTag(b, responseCert, protowire.BytesType), cert)
	}
	return writeMessage(w, b)
}

// link is where the next sidecar leads to.
type link struct {
	dir, upstream   string
	cert, key, root string // files; empty: cleartext
	web             bool   // calls of gRPC-Web are made calls of gRPC
}

func (l *link) saveCredentials(cert, key, root []byte) error {
	l.cert, l.key, l.root = filepath.Join(l.dir, "cert.pem"), filepath.Join(l.dir, "key.pem"), filepath.Join(l.dir, "root.pem")
	return errors.Join(os.WriteFile(l.cert, cert, 0o600), os.WriteFile(l.key, key, 0o600), os.WriteFile(l.root, root, 0o600))
}

// start starts a sidecar in front of what there is. TLS is spoken by the first
// downstream and the last upstream.
func (l *link) start(ctx context.Context, program string, first, last bool) (*exec.Cmd, string, error) {
	free, err := freeport.Addresses(1)
	if err != nil {
		return nil, "", err
	}
	listen := free[0]
	file := filepath.Join(l.dir, "sidecar"+filepath.Ext("x."+listen[len("127.0.0.1:"):])+".yaml")
	if err := os.WriteFile(file, []byte(l.bootstrap(listen, first, last)), 0o600); err != nil {
		return nil, "", err
	}
	cmd := exec.Command(program, "-c", file, "--concurrency", "1", "--drain-time-s", "1")
	log, err := os.Create(file + ".log")
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	if err := await(ctx, listen); err != nil {
		end(cmd)
		text, _ := os.ReadFile(log.Name())
		return nil, "", fmt.Errorf("a sidecar: %w\n%s", err, text)
	}
	return cmd, listen, nil
}

// await waits until somebody listens.
func await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("does not listen on %s: %w", address, err)
		}
	}
}

// end ends a process that this one started.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // of a signal it ends with an error
}

// readMessage reads a message behind its length, big-endian.
func readMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// field is the last value of a field of bytes, nil if there is none.
func field(message []byte, want protowire.Number) (value []byte) {
	for b := message; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return value
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return value
		}
		if num == want && typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b)
		}
		b = b[n:]
	}
	return value
}

// number is the last value of a field that is a number, 0 if there is none.
func number(message []byte, want protowire.Number) (value uint64) {
	for b := message; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return value
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return value
		}
		if num == want && typ == protowire.VarintType {
			value, _ = protowire.ConsumeVarint(b)
		}
		b = b[n:]
	}
	return value
}
