// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	tokenKeyBytes = 32
	tokenPrefix   = "ort1."
	// maxTokenBytes is well above what MaxTokenServices long names need.
	maxTokenBytes = 8 << 10
)

// The bounds of bootstrap tokens.
const (
	MaxTokenLife     = 30 * 24 * time.Hour
	MaxTokenServices = 64
)

// TokenClaims is what a bootstrap token grants: to be a sidecar of one of these
// services, until it expires.
type TokenClaims struct {
	ID       string   `json:"id"` // for the audit log
	Services []string `json:"svc"`
	Expires  int64    `json:"exp"` // Unix seconds
}

// Allows says whether the token is good for a service.
func (t TokenClaims) Allows(service string) bool { return slices.Contains(t.Services, service) }

// ErrNotToken: it does not look like a bootstrap token at all.
var ErrNotToken = errors.New("not a bootstrap token")

// NewToken makes a bootstrap token for sidecars of these services. The authority
// keeps nothing of it: it is authenticated by a key of the authority's state.
func (a *Authority) NewToken(now time.Time, services []string, life time.Duration) (string, TokenClaims, error) {
	if len(services) == 0 || len(services) > MaxTokenServices {
		return "", TokenClaims{}, fmt.Errorf("token: %d services, want 1 to %d", len(services), MaxTokenServices)
	}
	if life <= 0 || life > MaxTokenLife {
		return "", TokenClaims{}, fmt.Errorf("token: life %v: want more than 0 and at most %v", life, MaxTokenLife)
	}
	for _, s := range services {
		if err := CheckService(s); err != nil {
			return "", TokenClaims{}, fmt.Errorf("token: %w", err)
		}
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", TokenClaims{}, err
	}
	claims := TokenClaims{ID: hex.EncodeToString(id[:]), Services: services, Expires: now.Add(life).Unix()}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", TokenClaims{}, err
	}
	body := tokenPrefix + base64.RawURLEncoding.EncodeToString(payload)
	return body + "." + base64.RawURLEncoding.EncodeToString(a.tokenMAC(body)), claims, nil
}

func (a *Authority) tokenMAC(body string) []byte {
	a.mu.Lock()
	key := a.state.TokenKey // never changes
	a.mu.Unlock()
	m := hmac.New(sha256.New, key)
	m.Write([]byte(body))
	return m.Sum(nil)
}

// CheckToken reads a bootstrap token. Nothing of it is looked at before its
// authenticity is known. Errors never quote it.
func (a *Authority) CheckToken(now time.Time, token string) (TokenClaims, error) {
	if !strings.HasPrefix(token, tokenPrefix) || len(token) > maxTokenBytes {
		return TokenClaims{}, ErrNotToken
	}
	dot := strings.LastIndexByte(token, '.')
	body, text := token[:dot], token[dot+1:]
	mac, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || !hmac.Equal(mac, a.tokenMAC(body)) {
		return TokenClaims{}, errors.New("bootstrap token: is not one of this mesh")
	}
	var claims TokenClaims
	payload, err := base64.RawURLEncoding.Strict().DecodeString(body[len(tokenPrefix):])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		return TokenClaims{}, errors.New("bootstrap token: is of another version")
	}
	if expires := time.Unix(claims.Expires, 0); !now.Before(expires) {
		return TokenClaims{}, fmt.Errorf("bootstrap token %s: expired at %s; make one: controlplane ca token --service NAME", claims.ID, expires.UTC().Format(time.RFC3339))
	}
	return claims, nil
}

// maxServiceBytes is a DNS label, as the model has it.
const maxServiceBytes = 63

// CheckService says what is wrong with the name of a service in an identity.
func CheckService(s string) error {
	if s == "" || len(s) > maxServiceBytes {
		return fmt.Errorf("service: %d bytes, want 1 to %d", len(s), maxServiceBytes)
	}
	for i := range len(s) {
		if c := s[i]; !lower(c) && (i == 0 || i == len(s)-1 || c != '-' && c != '.') {
			return fmt.Errorf("service %q: want lower-case letters, digits, '-' and '.'", s)
		}
	}
	return nil
}
