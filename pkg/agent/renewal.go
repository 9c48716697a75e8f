// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// The waits after a certificate could not be had.
const (
	certificateMinWait = time.Second
	certificateMaxWait = 5 * time.Minute
)

// renewal decides when to ask for a certificate: at half of its life, give or take
// a twentieth, so that sidecars which started together part; after a failure with
// growing waits, which shrink again as the end of the certificate comes near. Time
// and chance are arguments.
type renewal struct {
	// Set once.
	min, max time.Duration
	chance   func(below time.Duration) time.Duration // from 0 to below

	due      time.Time // zero: at once
	notAfter time.Time // of the certificate that there is; zero: none
	failures int
}

// issued notes a new certificate.
func (r *renewal) issued(now, notAfter time.Time) {
	life := notAfter.Sub(now)
	r.failures, r.notAfter = 0, notAfter
	r.due = now.Add(life*9/20 + r.chance(life/10))
}

// failed notes that there is none this time.
func (r *renewal) failed(now time.Time) {
	wait := r.min << min(r.failures, 20)
	if wait > r.max || wait <= 0 {
		wait = r.max
	}
	r.failures++
	if left := r.notAfter.Sub(now); left > 0 {
		wait = min(wait, max(r.min, left/4))
	}
	r.due = now.Add(wait/2 + r.chance(wait/2))
}

// wait is how long it is until the certificate is due.
func (r *renewal) wait(now time.Time) time.Duration { return max(0, r.due.Sub(now)) }
