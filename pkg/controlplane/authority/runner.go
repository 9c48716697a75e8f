// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// Config says where an authority is kept and how it behaves.
type Config struct {
	Dir         string // of identity.Folder
	TrustDomain string
	LeafLife    time.Duration // 0: identity's default
	Overlap     time.Duration // 0: LeafLife
	// CertificateFile and KeyFile are an outside authority's, PEM, read again when
	// they change; empty: the mesh has its own. RootFile may be empty where the root
	// is the last certificate of CertificateFile.
	CertificateFile, KeyFile, RootFile string

	Logger *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
}

// Runner is a running authority.
type Runner struct {
	// Set once.
	config    Config
	log       *slog.Logger
	now       func() time.Time
	authority *identity.Authority

	serving atomic.Pointer[servingCertificate]

	mu sync.Mutex
	// Guarded by mu.
	files   [sha256.Size]byte // of an outside authority, as they were read last
	fault   string            // why the files are not in force; empty when they are
	refused map[identity.Reason]uint64
	second  int64 // Unix time of the last refusals in the log, and how many they were
	lines   int
}

type servingCertificate struct {
	tls   tls.Certificate
	renew time.Time
}

// Open continues the authority in the folder, or makes it.
func Open(c Config) (*Runner, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if (c.CertificateFile == "") != (c.KeyFile == "") || c.RootFile != "" && c.CertificateFile == "" {
		return nil, errors.New("an outside authority needs both its certificate and its key")
	}
	r := &Runner{config: c, log: c.Logger, now: c.Now, refused: map[identity.Reason]uint64{}}
	folder := identity.Folder(c.Dir)
	saved, err := folder.Load()
	if err != nil {
		return nil, err
	}
	given, err := r.readFiles()
	if err != nil {
		return nil, err
	}
	r.authority, err = identity.Open(c.Now(), saved, identity.Config{
		TrustDomain: c.TrustDomain, LeafLife: c.LeafLife, Overlap: c.Overlap, Given: given, Save: folder.Save,
	})
	if err != nil {
		return nil, err
	}
	if saved == nil {
		r.log.Info("certificate authority made", "trustDomain", r.authority.TrustDomain(), "outside", given != nil)
	}
	if w := r.authority.Warning(); w != "" {
		r.log.Warn("certificate authority", "warning", w)
	}
	return r, r.renewServing(c.Now())
}

// Authority is what Runner runs.
func (r *Runner) Authority() *identity.Authority { return r.authority }

const (
	// maxWait bounds a wait, so that a clock that is set does no harm for long.
	maxWait = time.Minute
	// minWait bounds how often a failing disk is tried.
	minWait = 50 * time.Millisecond
	// settle is the quiet time after an event of the files: they are several.
	settle = 200 * time.Millisecond
	// pollFiles is for folders whose events do not arrive.
	pollFiles = 10 * time.Second
)

// Run does what is due until ctx ends.
func (r *Runner) Run(ctx context.Context) {
	changed, stop := r.authority.Changes()
	defer stop()
	events, lost, end := r.watch()
	defer end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	poll := time.NewTicker(pollFiles)
	defer poll.Stop()
	quiet := time.NewTimer(0) // read once at the start: what changed since Open is not lost
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(r.tick())
		case <-changed:
			timer.Reset(r.tick())
		case _, ok := <-events:
			if ok {
				quiet.Reset(settle)
			}
		case _, ok := <-lost:
			if ok {
				quiet.Reset(settle)
			}
		case <-quiet.C:
			r.reload()
		case <-poll.C:
			r.reload()
		}
	}
}

// tick does what is due and says when to come again.
func (r *Runner) tick() time.Duration {
	now := r.now()
	before := phases(r.authority.Status())
	next, err := r.authority.Step(now)
	if err != nil {
		r.log.Error("certificate authority: a step that is due failed, the state is as it was", "error", err, "retry", next)
	}
	for fingerprint, phase := range phases(r.authority.Status()) {
		if before[fingerprint] != phase {
			r.log.Info("root of the trust bundle", "root", fingerprint, "phase", string(phase))
		}
		delete(before, fingerprint)
	}
	for fingerprint := range before {
		r.log.Info("root left the trust bundle", "root", fingerprint)
	}
	s := r.serving.Load()
	if !now.Before(s.renew) {
		if err := r.renewServing(now); err != nil {
			r.log.Error("certificate of the control plane could not be renewed; the old one serves on", "until", s.tls.Leaf.NotAfter, "error", err)
			return min(maxWait, max(minWait, s.tls.Leaf.NotAfter.Sub(now)/8))
		}
		s = r.serving.Load()
	}
	return min(maxWait, max(minWait, min(next.Sub(now), s.renew.Sub(now))))
}

func phases(s identity.Status) map[string]identity.Phase {
	out := map[string]identity.Phase{}
	for _, x := range s.Roots {
		out[x.Fingerprint] = x.Phase
	}
	return out
}

// renewServing makes a new key and certificate for the control plane's own ports.
// Connections that are open keep theirs.
func (r *Runner) renewServing(now time.Time) error {
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	issued, err := r.authority.Issue(now, &key.PublicKey, identity.ControlPlaneID(r.authority.TrustDomain()))
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		return err
	}
	r.serving.Store(&servingCertificate{
		tls:   tls.Certificate{Certificate: issued.Chain, PrivateKey: key, Leaf: leaf},
		renew: now.Add(issued.NotAfter.Sub(now) / 2),
	})
	return nil
}

// ServerTLS is what the control plane's ports serve with: TLS 1.3, its own current
// certificate, and a check of the client's against the current bundle. A client
// without a certificate is let through; who serves decides on it.
func (r *Runner) ServerTLS() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true, NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &r.serving.Load().tls, nil },
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.GetConfigForClient = nil
		remote := hello.Conn.RemoteAddr().String()
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil
			}
			_, err := identity.VerifyPeer(r.now(), s.PeerCertificates, r.authority.Bundle().Pool, r.authority.TrustDomain())
			if err != nil {
				r.Refused(remote, identity.ReasonOf(err), err)
			}
			return err
		}
		return c, nil
	}
	return base
}

// maxRefusalLines bounds the log: anybody who reaches the port can be refused.
const maxRefusalLines = 20 // a second

// Refused counts a caller that was not let in, and logs it unless there are many.
func (r *Runner) Refused(remote string, reason identity.Reason, err error) {
	now := r.now().Unix()
	r.mu.Lock()
	r.refused[reason]++
	if now != r.second {
		r.second, r.lines = now, 0
	}
	r.lines++
	lines := r.lines
	r.mu.Unlock()
	switch {
	case lines < maxRefusalLines:
		r.log.Warn("caller refused", "remote", remote, "reason", string(reason), "error", err)
	case lines == maxRefusalLines:
		r.log.Warn("more callers are refused than are logged; the metric counts them", "remote", remote, "reason", string(reason))
	}
}

// RefusedCallers are the counts by reason, since the start.
func (r *Runner) RefusedCallers() map[identity.Reason]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[identity.Reason]uint64, len(r.refused))
	for k, v := range r.refused {
		out[k] = v
	}
	return out
}

// Status is the authority's, with what is wrong with an outside one's files.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.serving.Load()
	return Status{
		Status: r.authority.Status(), FilesError: r.fault,
		ServingNotAfter: s.tls.Leaf.NotAfter, ServingSerial: fmt.Sprintf("%x", s.tls.Leaf.SerialNumber),
	}
}

// Status is what the API shows.
type Status struct {
	identity.Status
	// FilesError says why an outside authority's files are not in force.
	FilesError      string    `json:"filesError,omitempty"`
	ServingNotAfter time.Time `json:"servingNotAfter"` // of the control plane's own certificate
	ServingSerial   string    `json:"servingSerial"`
}

// Rotate announces a new root; see identity.Authority.
func (r *Runner) Rotate(overlap time.Duration) error { return r.authority.Rotate(r.now(), overlap) }

// NewToken makes a bootstrap token; see identity.Authority.
func (r *Runner) NewToken(services []string, life time.Duration) (string, identity.TokenClaims, error) {
	return r.authority.NewToken(r.now(), services, life)
}

// maxFileBytes bounds each of an outside authority's files.
const maxFileBytes = 256 << 10

// readFiles reads an outside authority; nil when there is none.
func (r *Runner) readFiles() (*identity.Issuer, error) {
	c := &r.config
	if c.CertificateFile == "" {
		return nil, nil
	}
	var contents [3][]byte
	digest := sha256.New()
	for i, path := range []string{c.CertificateFile, c.KeyFile, c.RootFile} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.Size() > maxFileBytes {
			return nil, fmt.Errorf("%s: %d bytes, the limit is %d", path, info.Size(), maxFileBytes)
		}
		if contents[i], err = os.ReadFile(path); err != nil {
			return nil, err
		}
		fmt.Fprintf(digest, "%d:", len(contents[i]))
		digest.Write(contents[i])
	}
	sum := [sha256.Size]byte(digest.Sum(nil))
	r.mu.Lock()
	same := r.authority != nil && r.files == sum
	r.mu.Unlock()
	if same {
		return nil, errSame
	}
	i, err := identity.ReadIssuer(r.now(), contents[0], contents[1], contents[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.CertificateFile, err)
	}
	r.mu.Lock()
	r.files = sum
	r.mu.Unlock()
	return i, nil
}

var errSame = errors.New("the files are those in force")

// reload reads the files again. What is wrong leaves the last good ones in force.
func (r *Runner) reload() {
	if r.config.CertificateFile == "" {
		return
	}
	i, err := r.readFiles()
	if err == nil {
		if err = r.authority.Replace(r.now(), i); err == nil {
			r.log.Info("outside authority read", "issuer", i.String())
		} else {
			r.mu.Lock()
			r.files = [sha256.Size]byte{} // so that they are read again
			r.mu.Unlock()
		}
	}
	fault := ""
	if err != nil && !errors.Is(err, errSame) {
		fault = err.Error()
	}
	r.mu.Lock()
	told := r.fault == fault
	r.fault = fault
	r.mu.Unlock()
	if fault != "" && !told {
		r.log.Error("outside authority: the files are not taken, the last good ones are in force", "error", err, "missing", errors.Is(err, fs.ErrNotExist))
	}
}

// watch watches the folders of the files: files are replaced by renames, and by
// symbolic links that turn.
func (r *Runner) watch() (events <-chan fsnotify.Event, lost <-chan error, end func()) {
	if r.config.CertificateFile == "" {
		return nil, nil, func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		r.log.Warn("no file events, the files are polled", "every", pollFiles, "error", err)
		return nil, nil, func() {}
	}
	for _, path := range []string{r.config.CertificateFile, r.config.KeyFile, r.config.RootFile} {
		if path == "" {
			continue
		}
		if err := w.Add(filepath.Dir(path)); err != nil {
			r.log.Warn("no file events, the files are polled", "folder", filepath.Dir(path), "every", pollFiles, "error", err)
		}
	}
	return w.Events, w.Errors, func() { _ = w.Close() } // ends its goroutine; nothing was written
}
