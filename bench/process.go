// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/launch"
)

// endGrace is what a process gets between SIGTERM and SIGKILL.
const endGrace = 2 * time.Second

// spawner starts processes, each pinned to a CPU, and ends them.
type spawner struct {
	dir      string // for logs
	launcher *launch.Launcher

	mu   sync.Mutex
	live []*process // guarded by mu
	n    int        // guarded by mu: numbers log files
}

// process is one started program, the leader of its own process group.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it ended and was reaped
	err  error         // valid after done
}

func newSpawner(dir string) *spawner { return &spawner{dir: dir, launcher: launch.New()} }

// pin binds the thread that forks to a CPU: what it starts inherits that.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return nil
}

// start runs a program pinned to a CPU, its output in a log file or, where stdout
// is given, standard output there.
func (s *spawner) start(name string, cpu int, stdout io.Writer, argv ...string) (*process, error) {
	s.mu.Lock()
	s.n++
	p := &process{name: name, log: filepath.Join(s.dir, fmt.Sprintf("%s.%d.log", name, s.n)), done: make(chan struct{})}
	s.mu.Unlock()
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = s.dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	err = s.launcher.Start(p.cmd, syscall.SIGTERM, func() error { return pin(cpu) })
	_ = log.Close() // the child has its own
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s.mu.Lock()
	s.live = append(s.live, p)
	s.mu.Unlock()
	go func() { // ends when the process does
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// close ends everything that still runs, then the thread.
func (s *spawner) close() {
	s.mu.Lock()
	live := s.live
	s.live = nil
	s.mu.Unlock()
	s.end(live...)
	s.launcher.Close()
}

// end asks the processes to end, and after a while makes their groups.
func (s *spawner) end(list ...*process) {
	for _, p := range list {
		p.signal(syscall.SIGTERM)
	}
	limit := time.NewTimer(endGrace)
	defer limit.Stop()
	expired := false
	for _, p := range list {
		if !expired {
			select {
			case <-p.done:
			case <-limit.C:
				expired = true
			}
		}
		p.signal(syscall.SIGKILL) // also what the leader has left behind
		<-p.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range list {
		for i, q := range s.live {
			if p == q {
				s.live = append(s.live[:i], s.live[i+1:]...)
				break
			}
		}
	}
}

// signal reaches the whole group. The number cannot belong to another yet where
// the leader is unreaped or members are left; otherwise the group is gone.
func (p *process) signal(sig syscall.Signal) { _ = syscall.Kill(-p.pid(), sig) }

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended returns an error with the end of the log if the process is gone.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself (%w); the end of its log:\n%s", p.name, p.cause(), p.logTail())
	default:
		return nil
	}
}

func (p *process) cause() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

func (p *process) logTail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return tail(string(text), 20)
}

// runToEnd runs a program to its end and returns its standard output.
func (s *spawner) runToEnd(ctx context.Context, name string, cpu int, argv ...string) (string, error) {
	var out strings.Builder
	p, err := s.start(name, cpu, &out, argv...)
	if err != nil {
		return "", err
	}
	select {
	case <-p.done:
		s.end(p)
	case <-ctx.Done():
		s.end(p)
		return "", ctx.Err()
	}
	if p.err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), p.err, p.logTail())
	}
	_ = os.Remove(p.log)
	return out.String(), nil
}

// pinSelf moves every thread of this program to a CPU; later ones inherit it.
func pinSelf(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin to CPU %d: %w", cpu, err)
		}
	}
	return nil
}

// twoCPUs picks the first two CPUs that this program may use: the proxy's and
// that of everything else.
func twoCPUs() (proxyCPU, loadCPU int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, err
	}
	var found []int
	for i := range 1024 {
		if set.IsSet(i) {
			found = append(found, i)
		}
	}
	if len(found) < 2 {
		return 0, 0, fmt.Errorf("needs two CPUs, one for the proxy and one for backend and load; this machine allows %d", len(found))
	}
	return found[0], found[1], nil
}
