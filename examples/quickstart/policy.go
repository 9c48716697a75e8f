// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// inARow is how many answers have to come from the one instance: with two
// instances it is no chance.
const inARow = 20

// policy sends all requests for payments to its second version by a route, takes
// the route back, and measures both.
func (s *story) policy(ctx context.Context) (string, error) {
	v2 := s.mesh.of("payments")[1]
	host, port, err := hostPort(v2.inbound)
	if err != nil {
		return "", err
	}
	service := fmt.Sprintf("apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: payments-v2}\nspec: {endpoints: [{address: %s, port: %d}]}\n", host, port)
	if err := s.mesh.put(ctx, "Service/payments-v2", []byte(service)); err != nil {
		return "", err
	}
	s.load.begin()
	began := time.Now()
	if err := s.mesh.put(ctx, "HTTPRoute/payments", []byte(canary)); err != nil {
		return "", err
	}
	there, err := s.onlyFrom(ctx, v2.id, began)
	if err != nil {
		return "", err
	}
	began = time.Now()
	if _, err := s.mesh.do(ctx, http.MethodDelete, s.mesh.api("/v1/objects/HTTPRoute/payments"), nil); err != nil {
		return "", err
	}
	back, err := s.firstFrom(ctx, s.mesh.of("payments")[0].id, began)
	if err != nil {
		return "", err
	}
	if there > time.Second || back > time.Second {
		return "", fmt.Errorf("the route was live after %v and gone after %v", there, back)
	}
	if err := s.load.sofar().flawless(); err != nil {
		return "", err
	}
	return fmt.Sprintf("HTTPRoute payments → v2 only: live after %v, gone again after %v, no request lost", there.Round(time.Millisecond), back.Round(time.Millisecond)), nil
}

// canary is the route: all to payments-v2.
const canary = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: payments}
spec:
  parentRefs: [{group: outrigger.io, kind: Service, name: payments}]
  rules:
  - backendRefs:
    - {group: outrigger.io, kind: Service, name: payments, weight: 0}
    - {group: outrigger.io, kind: Service, name: payments-v2, weight: 100}
`

// onlyFrom waits for answers of one instance in a row; the result is the time
// from began to the first of them.
func (s *story) onlyFrom(ctx context.Context, instance string, began time.Time) (first time.Duration, err error) {
	row := 0
	err = poll(ctx, time.Minute, func() error {
		a, _, err := ask(ctx, s.mesh.client, s.mesh.entry(), nil)
		if err != nil {
			return err
		}
		if a.last().Instance != instance {
			row = 0
			return fmt.Errorf("%s still answers", a.last().Instance)
		}
		if row++; row == 1 {
			first = time.Since(began)
		}
		if row < inARow {
			return fmt.Errorf("%d answers of %s in a row, want %d", row, instance, inARow)
		}
		return nil
	})
	return first, err
}

// firstFrom waits for an answer of an instance.
func (s *story) firstFrom(ctx context.Context, instance string, began time.Time) (time.Duration, error) {
	err := poll(ctx, time.Minute, func() error {
		a, _, err := ask(ctx, s.mesh.client, s.mesh.entry(), nil)
		if err == nil && a.last().Instance != instance {
			err = fmt.Errorf("%s does not answer", instance)
		}
		return err
	})
	return time.Since(began), err
}
