// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Phase is how far a root is in its life.
type Phase string

// The phases, in their order. A root is in the trust bundle in all of them.
const (
	Announced Phase = "announced" // distributed, does not sign yet
	Signing   Phase = "signing"
	Retiring  Phase = "retiring" // signs no more; stays until what it signed has expired
)

// State is all of an authority that must survive. It holds private keys.
type State struct {
	Version     int
	TrustDomain string
	Roots       []Root
	// Intermediate signs for the signing root, where that is the authority's own.
	Intermediate *keyPair
	TokenKey     secret
}

const stateVersion = 1

// Root is one root with its dates.
type Root struct {
	Certificate []byte // DER
	Key         secret // PKCS #8; none for that of an outside authority
	Phase       Phase
	AnnouncedAt time.Time
	// SignsAt is when it begins to sign, or has begun.
	SignsAt time.Time
	// RetiredAt is when it stopped.
	RetiredAt time.Time
	// IssuedUntil is not before the end of anything that it has signed.
	IssuedUntil time.Time
}

type keyPair struct {
	Certificate []byte
	Key         secret
}

// secret is bytes that no way of printing or marshalling shows, however deep in
// other values they are; EncodeState alone writes them.
type secret []byte

const hidden = "(secret)"

// MarshalJSON implements json.Marshaler.
func (secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// Format implements fmt.Formatter.
func (secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) } // the printer's buffer takes all

// String names it.
func (s State) String() string   { return fmt.Sprintf("authority of %s", s.TrustDomain) }
func (s State) GoString() string { return s.String() }

// LogValue implements slog.LogValuer.
func (s State) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (r Root) String() string   { return "root " + r.Fingerprint() }
func (r Root) GoString() string { return r.String() }

// LogValue implements slog.LogValuer.
func (r Root) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Fingerprint is the SHA-256 of the certificate, in hexadecimal.
func (r Root) Fingerprint() string { return fingerprint(r.Certificate) }

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// clone copies what changes; bytes of keys and certificates never do.
func (s State) clone() State {
	s.Roots = slices.Clone(s.Roots)
	return s
}

func (s *State) root(p Phase) *Root {
	for i := range s.Roots {
		if s.Roots[i].Phase == p {
			return &s.Roots[i]
		}
	}
	return nil
}

func (s *State) find(certificate []byte) *Root {
	for i := range s.Roots {
		if string(s.Roots[i].Certificate) == string(certificate) {
			return &s.Roots[i]
		}
	}
	return nil
}

// EncodeState writes a state as the file holds it, with its keys.
func EncodeState(s State) ([]byte, error) {
	f := file{Version: s.Version, TrustDomain: s.TrustDomain, TokenKey: s.TokenKey}
	for _, r := range s.Roots {
		f.Roots = append(f.Roots, fileRoot{r.Certificate, r.Key, r.Phase, r.AnnouncedAt, r.SignsAt, r.RetiredAt, r.IssuedUntil})
	}
	if s.Intermediate != nil {
		f.Intermediate = &filePair{s.Intermediate.Certificate, s.Intermediate.Key}
	}
	data, err := json.MarshalIndent(f, "", " ")
	return append(data, '\n'), err
}

// file, fileRoot and filePair are State, Root and keyPair as they are written.
type file struct {
	Version      int        `json:"version"`
	TrustDomain  string     `json:"trustDomain"`
	Roots        []fileRoot `json:"roots"`
	Intermediate *filePair  `json:"intermediate,omitempty"`
	TokenKey     []byte     `json:"tokenKey"`
}

type fileRoot struct {
	Certificate []byte    `json:"certificate"`
	Key         []byte    `json:"key,omitempty"`
	Phase       Phase     `json:"phase"`
	AnnouncedAt time.Time `json:"announcedAt"`
	SignsAt     time.Time `json:"signsAt"`
	RetiredAt   time.Time `json:"retiredAt,omitzero"`
	IssuedUntil time.Time `json:"issuedUntil,omitzero"`
}

type filePair struct {
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

func (f *file) state() *State {
	s := &State{Version: f.Version, TrustDomain: f.TrustDomain, TokenKey: f.TokenKey}
	for _, r := range f.Roots {
		s.Roots = append(s.Roots, Root{r.Certificate, r.Key, r.Phase, r.AnnouncedAt, r.SignsAt, r.RetiredAt, r.IssuedUntil})
	}
	if f.Intermediate != nil {
		s.Intermediate = &keyPair{f.Intermediate.Certificate, f.Intermediate.Key}
	}
	return s
}

// DecodeState reads what EncodeState wrote and checks that keys and certificates
// belong together. Errors never quote the content.
func DecodeState(data []byte) (*State, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, errors.New("not the JSON that was written")
	}
	s := f.state()
	if s.Version != stateVersion {
		return nil, fmt.Errorf("version %d: this control plane knows %d", s.Version, stateVersion)
	}
	if err := CheckTrustDomain(s.TrustDomain); err != nil {
		return nil, err
	}
	if len(s.TokenKey) != tokenKeyBytes {
		return nil, fmt.Errorf("tokenKey: %d bytes, want %d", len(s.TokenKey), tokenKeyBytes)
	}
	signing, announced := 0, 0
	for i, r := range s.Roots {
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil || !c.IsCA {
			return nil, fmt.Errorf("roots[%d].certificate: is not that of an authority", i)
		}
		if len(r.Key) > 0 {
			if _, err := signer(c, r.Key); err != nil {
				return nil, fmt.Errorf("roots[%d].key: %w", i, err)
			}
		}
		switch r.Phase {
		case Signing:
			signing++
		case Announced:
			announced++
		case Retiring:
		default:
			return nil, fmt.Errorf("roots[%d].phase: %q is none", i, r.Phase)
		}
	}
	if signing != 1 || announced > 1 {
		return nil, fmt.Errorf("roots: %d sign and %d are announced, want 1 and at most 1", signing, announced)
	}
	return s, s.checkIntermediate()
}

func (s *State) checkIntermediate() error {
	own := len(s.root(Signing).Key) > 0
	if !own || s.Intermediate == nil {
		if own != (s.Intermediate != nil) {
			return errors.New("intermediate: missing, or not of the signing root")
		}
		return nil
	}
	c, err := x509.ParseCertificate(s.Intermediate.Certificate)
	if err != nil {
		return errors.New("intermediate.certificate: is none")
	}
	root, err := x509.ParseCertificate(s.root(Signing).Certificate)
	if err != nil {
		return err
	}
	if err := c.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("intermediate: not of the signing root: %w", err)
	}
	if _, err := signer(c, s.Intermediate.Key); err != nil {
		return fmt.Errorf("intermediate.key: %w", err)
	}
	return nil
}

// signer reads the key (PKCS #8) of a certificate.
func signer(c *x509.Certificate, der []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("is no PKCS #8 private key")
	}
	return matching(c, parsed)
}

func matching(c *x509.Certificate, key any) (crypto.Signer, error) {
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("cannot sign")
	}
	public, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(s.Public()) {
		return nil, errors.New("is not the key of its certificate")
	}
	return s, nil
}
