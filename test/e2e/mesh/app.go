// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The application is the test binary run again with these: what it listens on,
// and its name.
const (
	appEnv   = "OUTRIGGER_E2E_APP"
	appIDEnv = "OUTRIGGER_E2E_APP_ID"
)

// InstanceHeader names the application that answered.
const InstanceHeader = "X-Instance"

// App is a small HTTP application:
//
//	/           reads the body, waits ?ms= and answers its length
//	/hold       answers only when the caller goes away
//	/bytes      answers ?n= bytes
//	/sink       reads the body ?rate= bytes a second
//	/ws         echoes the messages of a WebSocket
//	/header     answers the request header ?name=
//	/seen       how many requests for other paths there were
type App struct {
	*Process
	ID, Address string
}

// StartApp starts an application on a free port.
func StartApp(t testing.TB, dir, id string) *App {
	t.Helper()
	return startAppAt(t, dir, id, FreeAddress(t))
}

func startAppAt(t testing.TB, dir, id, address string) *App {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &App{ID: id, Address: address}
	a.Process = Start(t, "app "+id, filepath.Join(dir, id+".app.log"), []string{appEnv + "=" + address, appIDEnv + "=" + id}, exe)
	a.Await(startLimit, "the application answers", func() error {
		_, err := Get("http://" + address + "/seen")
		return err
	})
	return a
}

// Seen asks the application, not through a sidecar, how many requests it had.
func (a *App) Seen() int {
	a.t.Helper()
	body, err := Get("http://" + a.Address + "/seen")
	if err != nil {
		a.t.Fatal(err)
	}
	return number(a.t, body)
}

type app struct {
	id   string
	seen atomic.Int64
}

// runApp serves until SIGTERM; its result is the exit code.
func runApp() int {
	a := &app{id: os.Getenv(appIDEnv)}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("/", a.answer)
	mux.HandleFunc("/hold", a.hold)
	mux.HandleFunc("/bytes", a.bytes)
	mux.HandleFunc("/sink", a.sink)
	mux.HandleFunc("/ws", a.webSocket)
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Join(r.Header.Values(r.URL.Query().Get("name")), "\n"))
	})
	mux.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, a.seen.Load()) })
	server := &http.Server{Addr: os.Getenv(appEnv), Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { // ends with the process
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); err != nil && ctx.Err() == nil {
		return complain(err)
	}
	return 0
}

func (a *app) answer(w http.ResponseWriter, r *http.Request) {
	a.seen.Add(1)
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if ms, _ := strconv.Atoi(r.URL.Query().Get("ms")); ms > 0 {
		Pass(time.Duration(ms) * time.Millisecond)
	}
	w.Header().Set(InstanceHeader, a.id)
	fmt.Fprintln(w, n)
}

func (a *app) hold(_ http.ResponseWriter, r *http.Request) {
	a.seen.Add(1)
	_, _ = io.Copy(io.Discard, r.Body) // to notice that the caller has gone
	<-r.Context().Done()
}

func (a *app) bytes(w http.ResponseWriter, r *http.Request) {
	a.seen.Add(1)
	n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, zeros{}, n) // the caller may go
}

// sink takes a tenth of its rate ten times a second.
func (a *app) sink(_ http.ResponseWriter, r *http.Request) {
	a.seen.Add(1)
	rate, _ := strconv.ParseInt(r.URL.Query().Get("rate"), 10, 64)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := io.CopyN(io.Discard, r.Body, max(rate/10, 1)); err != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
