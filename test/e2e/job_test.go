// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// A job ends as soon as the kernel has its last bytes, while most of them are still on
// their way through the sidecar: all of them arrive, and the exit code is the job's.
func TestAJobsLastBytesArriveBeforeItsSidecarEnds(t *testing.T) {
	// More than fits behind the sidecar, and no more than fits before it where buffers
	// have not grown, as on a busy machine: 2.6 MB for each sender on loopback.
	const size = 4 << 20
	m := mesh.New(t)
	m.ControlPlane.PutYAML("Service", "db", fmt.Sprintf(tcpServices, "db", 5432, "tcp"))
	arrived, ended := make(chan int64, 64), make(chan struct{})
	m.ControlPlane.PutInstance("db", "db-1", serveConns(t, func(c net.Conn) {
		_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		one := make([]byte, 1)
		if n, _ := c.Read(one); n == 0 {
			return
		}
		<-ended // all else waits on the way
		n, _ := io.Copy(io.Discard, c)
		n++
		arrived <- n
	}))
	db := mesh.FreeAddress(t)
	host, port, err := net.SplitHostPort(db)
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`until exec 3<>/dev/tcp/%s/%s; do :; done 2>/dev/null; head -c %d /dev/zero >&3; exit 7`, host, port, size)
	job := mesh.Start(t, "job", filepath.Join(m.Dir, "job.log"), nil,
		mesh.Program("sidecar"), "exec", "--service", "job", "--id", "job-1", "--controlplane", m.ControlPlane.XDS,
		"--outbound", mesh.FreeAddress(t), "--admin", mesh.FreeAddress(t), "--data", filepath.Join(m.Dir, "job"),
		"--tcp-outbound", db+"=db:5432", "--drain-time-s", "60", "--", "/bin/bash", "-c", script)
	mesh.Await(t, 20*time.Second, "the command's end", func() error {
		if !strings.Contains(job.Output(), "command ended") {
			return errors.New("it runs")
		}
		return nil
	})
	close(ended)
	if code := job.Wait(90 * time.Second); code != 7 {
		t.Errorf("it ended with %d", code)
	}
	select {
	case n := <-arrived:
		if n != size {
			t.Errorf("%d of %d bytes arrived", n, size)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing arrived")
	}
}
