// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// loadDownload reads as much as comes, and counts whole megabytes.
func loadDownload(connections int) func(context.Context, *target) (outcome, error) {
	return func(ctx context.Context, t *target) (outcome, error) {
		return together(ctx, t, connections, func(c net.Conn, until time.Time) (v tally, err error) {
			b, total := make([]byte, transferSize), int64(0)
			for time.Now().Before(until) {
				n, err := c.Read(b)
				total += int64(n)
				if err != nil {
					return v, err
				}
			}
			v.count = total / 1e6
			return v, nil
		})
	}
}

const echoBytes = 64

// loadEcho sends a message when the one before has come back.
func loadEcho(connections int) func(context.Context, *target) (outcome, error) {
	return func(ctx context.Context, t *target) (outcome, error) {
		return together(ctx, t, connections, func(c net.Conn, until time.Time) (v tally, err error) {
			sent, got := bytes.Repeat([]byte("8 bytes "), echoBytes/8), make([]byte, echoBytes)
			for now := time.Now(); now.Before(until); now = time.Now() {
				if _, err := c.Write(sent); err != nil {
					return v, err
				}
				if _, err := io.ReadFull(c, got); err != nil {
					return v, err
				}
				if !bytes.Equal(sent, got) {
					return v, errors.New("the echo differs")
				}
				v.done(now)
			}
			return v, nil
		})
	}
}
