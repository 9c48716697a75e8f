// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
)

// longAnswer is the size of what /long answers.
const longAnswer = 8 << 20

// drainLimit is how long an instance that is asked to end waits for its requests.
const drainLimit = 5 * time.Second

// instance is a service that can be told to fail: PUT /fail?errors=50&latency=2s on its
// control port.
type instance struct {
	errors  atomic.Int64 // percent of answers that are 500
	latency atomic.Int64 // nanoseconds before each
	calls   atomic.Int64
}

// newInstanceCommand is how this program starts itself as an instance.
func newInstanceCommand() *cobra.Command {
	var address, control string
	c := &cobra.Command{
		Use: "instance", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runInstance(c.Context(), address, control) },
	}
	c.Flags().StringVar(&address, "address", "", "where it answers")
	c.Flags().StringVar(&control, "control", "", "where it is told to fail")
	return c
}

// runInstance serves until the context ends, then finishes what is under way.
func runInstance(ctx context.Context, address, control string) error {
	in := new(instance)
	told, err := net.Listen("tcp", control)
	if err != nil {
		return err
	}
	served, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	end := make(chan error, 2)
	server := &http.Server{Handler: http.HandlerFunc(in.serve), ReadHeaderTimeout: time.Minute}
	controls := &http.Server{Handler: http.HandlerFunc(in.control), ReadHeaderTimeout: time.Minute}
	go func() { end <- server.Serve(served) }()
	go func() { end <- controls.Serve(told) }()
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	return errors.Join(server.Shutdown(limit), controls.Close())
}

func (in *instance) serve(w http.ResponseWriter, r *http.Request) {
	in.calls.Add(1)
	if d := time.Duration(in.latency.Load()); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	if rand.Int64N(100) < in.errors.Load() {
		http.Error(w, "told to fail", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	if r.URL.Path != "/long" {
		_, _ = io.WriteString(w, "well\n") // a client that is gone does not matter here
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(longAnswer))
	chunk := make([]byte, 64<<10)
	for sent := 0; sent < longAnswer; sent += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// control answers GET with the number of calls so far.
func (in *instance) control(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		_, _ = fmt.Fprintln(w, in.calls.Load())
		return
	}
	percent, err := strconv.ParseInt(r.FormValue("errors"), 10, 64)
	latency, err2 := time.ParseDuration(r.FormValue("latency"))
	if err := errors.Join(err, err2); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in.errors.Store(percent)
	in.latency.Store(int64(latency))
}
