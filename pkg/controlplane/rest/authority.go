// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"errors"
	"net/http"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/authority"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Authority is what the API shows of the mesh's certificate authority, and what may
// be asked of it. *authority.Runner is one.
type Authority interface {
	Status() authority.Status
	Rotate(overlap time.Duration) error
	NewToken(services []string, life time.Duration) (token string, claims identity.TokenClaims, err error)
}

var _ Authority = (*authority.Runner)(nil)

// rotateBody is the body of a rotation.
type rotateBody struct {
	Overlap mesh.Duration `json:"overlap,omitempty" doc:"How long the new root is in the trust bundle before it signs; empty for the configured time. Less than the life of certificates cuts off sidecars that are out of reach meanwhile."`
}

// tokenBody is the body that asks for a bootstrap token.
type tokenBody struct {
	Services []string      `json:"services" rule:"required" doc:"Services whose identity the token is good for."`
	Life     mesh.Duration `json:"life,omitempty" doc:"How long the token is good; 1h when empty, 720h at most."`
}

// tokenAnswer is a token and what it grants.
type tokenAnswer struct {
	Token    string    `json:"token"`
	ID       string    `json:"id"` // as the audit log names it
	Services []string  `json:"services"`
	Expires  time.Time `json:"expires"`
}

const defaultTokenLife = time.Hour

func (s *Server) noAuthority(w http.ResponseWriter, r *http.Request) bool {
	if s.config.Authority != nil {
		return false
	}
	s.problem(w, r, problem{Status: http.StatusServiceUnavailable, Detail: "this control plane is no certificate authority"})
	return true
}

func (s *Server) authorityStatus(w http.ResponseWriter, r *http.Request) {
	if !s.noAuthority(w, r) {
		s.answer(w, http.StatusOK, s.config.Authority.Status())
	}
}

func (s *Server) rotateAuthority(w http.ResponseWriter, r *http.Request) {
	var b rotateBody
	if s.noAuthority(w, r) || !s.decode(w, r, &b) {
		return
	}
	err := s.config.Authority.Rotate(time.Duration(b.Overlap))
	switch {
	case errors.Is(err, identity.ErrRotating), errors.Is(err, identity.ErrGiven):
		s.problem(w, r, problem{Status: http.StatusConflict, Title: "It cannot rotate now", Detail: err.Error()})
	case err != nil:
		s.fail(w, r, err)
	default:
		s.log.Info("rotation of the certificate authority was asked for", "overlap", time.Duration(b.Overlap), "remote", r.RemoteAddr)
		s.answer(w, http.StatusOK, s.config.Authority.Status())
	}
}

func (s *Server) makeToken(w http.ResponseWriter, r *http.Request) {
	var b tokenBody
	if s.noAuthority(w, r) || !s.decode(w, r, &b) {
		return
	}
	life := time.Duration(b.Life)
	if life == 0 {
		life = defaultTokenLife
	}
	token, claims, err := s.config.Authority.NewToken(b.Services, life)
	if err != nil {
		s.problem(w, r, problem{Status: http.StatusUnprocessableEntity, Title: "A field is wrong", Detail: err.Error()})
		return
	}
	expires := time.Unix(claims.Expires, 0).UTC()
	s.log.Info("bootstrap token made", "token", claims.ID, "services", claims.Services, "expires", expires, "remote", r.RemoteAddr)
	w.Header().Set("Cache-Control", "no-store")
	s.answer(w, http.StatusOK, tokenAnswer{Token: token, ID: claims.ID, Services: claims.Services, Expires: expires})
}
