// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"time"
)

// Status is what an agent knows of itself, for the admin port.
type Status struct {
	// Configured: the data path serves a complete configuration.
	Configured bool
	// Registered: the control plane has confirmed the instance within its lease.
	Registered bool
	// LeaseUntil is when the registration ends unless it is renewed.
	LeaseUntil time.Time
	// RegistryError is the last failure to register or renew, empty after a success.
	RegistryError string
	AppHealthy    bool
	// AppReason says why the application is not healthy.
	AppReason string
	Uploads   []UploadStatus
	// Certificate is nil without an identity.
	Certificate *CertificateStatus `json:",omitempty"`
}

// UploadStatus counts what one upload has done.
type UploadStatus struct {
	Name         string // "tap", "spans" or "events"
	AckedBatches uint64
	AckedRecords uint64
	// Dropped counts records that could never be handed over: batches that are too
	// large or that the control plane refuses.
	Dropped uint64
	// Refused counts spans and events that the control plane did not understand or take.
	Refused uint64
	// Lost counts events that the log did not have any more when they were to be sent.
	Lost      uint64 `json:",omitempty"`
	LastError string
}

// Status returns a copy.
func (a *Agent) Status() Status {
	s := a.board.status()
	if a.lease != nil {
		select {
		case <-a.lease.configured:
			s.Configured = true
		default:
		}
	}
	for _, u := range a.uploads {
		x := u.status()
		if src, ok := u.source.(*eventSource); ok {
			x.Lost = src.lostSoFar()
		}
		s.Uploads = append(s.Uploads, x)
	}
	if a.certificates != nil {
		c := a.certificates.Status()
		s.Certificate = &c
	}
	return s
}

// board is where the goroutines of an agent write what Status shows.
type board struct {
	mu sync.Mutex
	// Guarded by mu.
	s Status
}

func (b *board) status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.s
	s.Registered = s.Registered && time.Now().Before(s.LeaseUntil)
	return s
}

func (b *board) setApp(healthy bool, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.AppHealthy, b.s.AppReason = healthy, reason
}

func (b *board) setRegistered(until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Registered, b.s.LeaseUntil, b.s.RegistryError = true, until, ""
}

// setUnregistered keeps the time of the lease: the control plane may still hold it.
func (b *board) setUnregistered(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Registered, b.s.RegistryError = false, reason
}

func (b *board) setRegistryError(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.RegistryError = reason
}
