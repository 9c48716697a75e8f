// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// breakerSettings are the circuit of a cluster, in the io.outrigger metadata.
type breakerSettings struct {
	Enabled                *bool    `json:"enabled"`
	ErrorThresholdPercent  *int     `json:"errorThresholdPercent"`
	RequestVolumeThreshold *int     `json:"requestVolumeThreshold"`
	WindowMS               *int     `json:"windowMs"`
	WindowCalls            *int     `json:"windowCalls"`
	Buckets                *int     `json:"buckets"`
	SleepWindowMS          *int     `json:"sleepWindowMs"`
	SlowCallMS             *int     `json:"slowCallMs"`
	SlowCallPercent        *int     `json:"slowCallPercent"`
	HalfOpenCalls          *int     `json:"halfOpenCalls"`
	RecoveryMS             *int     `json:"recoveryMs"`
	RetryAfter             bool     `json:"retryAfter"`
	CountAsError           []string `json:"countAsError"`
	ForceOpen              bool     `json:"forceOpen"`
	ForceClosed            bool     `json:"forceClosed"`
}

// Bounds of what a circuit keeps.
const (
	maxWindowCalls   = 10_000
	maxHalfOpenCalls = 1_000
)

func (j *job) breaker(b *breakerSettings, p *place) *resource.CircuitBreaker {
	if b == nil {
		return nil
	}
	out := &resource.CircuitBreaker{
		Enabled:                b.Enabled == nil || *b.Enabled,
		ErrorThresholdPercent:  j.number(b.ErrorThresholdPercent, 50, 1, 100, p.field("errorThresholdPercent")),
		RequestVolumeThreshold: j.number(b.RequestVolumeThreshold, 20, 1, 1_000_000, p.field("requestVolumeThreshold")),
		Window:                 time.Duration(j.number(b.WindowMS, 10_000, 100, 3_600_000, p.field("windowMs"))) * time.Millisecond,
		Buckets:                j.number(b.Buckets, 10, 1, 100, p.field("buckets")),
		SleepWindow:            time.Duration(j.number(b.SleepWindowMS, 5000, 1, 3_600_000, p.field("sleepWindowMs"))) * time.Millisecond,
		ForceOpen:              b.ForceOpen, ForceClosed: b.ForceClosed,
		WindowCalls:   j.number(b.WindowCalls, 0, 1, maxWindowCalls, p.field("windowCalls")),
		HalfOpenCalls: j.number(b.HalfOpenCalls, 1, 1, maxHalfOpenCalls, p.field("halfOpenCalls")),
		Recovery:      time.Duration(j.number(b.RecoveryMS, 0, 0, 3_600_000, p.field("recoveryMs"))) * time.Millisecond,
		SlowDuration:  time.Duration(j.number(b.SlowCallMS, 0, 1, 3_600_000, p.field("slowCallMs"))) * time.Millisecond,
		SlowPercent:   j.number(b.SlowCallPercent, 100, 1, 100, p.field("slowCallPercent")),
		RetryAfter:    b.RetryAfter,
	}
	j.only(b.SlowCallPercent != nil && b.SlowCallMS == nil, p.field("slowCallPercent"), "needs slowCallMs")
	j.only(out.ForceOpen && out.ForceClosed, p.field("forceClosed"), "must not be set together with forceOpen")
	j.only(int(out.Window/time.Millisecond)%out.Buckets != 0, p.field("windowMs"), "must be a multiple of buckets")
	count := b.CountAsError
	if count == nil {
		count = []string{"5xx", "timeout", "connect-failure"}
	}
	for i, name := range count {
		j.countAs(out, name, p.item("countAsError", i))
	}
	return out
}

func (j *job) countAs(out *resource.CircuitBreaker, name string, p *place) {
	switch name {
	case "5xx":
		out.Count5xx = true
	case "4xx":
		out.Count4xx = true
	case "timeout":
		out.CountTimeout = true
	case "connect-failure":
		out.CountConnectFailure = true
	case "reset":
		out.CountReset = true
	case "overflow": // what limits refuse counts anyway, as in Hystrix
	default:
		n, err := strconv.Atoi(name)
		if err != nil || n < 100 || n > 599 {
			j.fail(p, "%q is none of 5xx, 4xx, timeout, connect-failure, reset, overflow or a status code", clip(name, 60))
			return
		}
		out.CountStatus = append(out.CountStatus, n)
	}
}
