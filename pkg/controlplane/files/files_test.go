// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func svc(name string) string {
	return "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: " + name + "}\n"
}

// picture is what a folder holds: "path: names" or "path: ! first error".
func picture(files []File) string {
	var out []string
	for _, f := range files {
		var names []string
		for _, o := range f.Objects {
			names = append(names, o.Key().Name)
		}
		if len(f.Errors) > 0 {
			names = []string{"! " + f.Errors[0].Error()}
		}
		out = append(out, f.Path+": "+strings.Join(names, ","))
	}
	return strings.Join(out, "; ")
}

func TestAFolderIsReadInOrderWithoutHiddenAndForeignFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/b.yaml", svc("b1")+"---\n"+svc("b2"))
	write(t, dir+"/a/x.yml", svc("x"))
	write(t, dir+"/c.json", `{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"c"}}`)
	write(t, dir+"/README.md", "kind: nothing")
	write(t, dir+"/.hidden.yaml", "kind: nothing")
	write(t, dir+"/.git/x.yaml", "kind: nothing")
	write(t, dir+"/bad.yaml", svc("ok")+"---\nkind: Service\n")
	write(t, dir+"/empty.yaml", "# nothing\n")
	if err := os.Symlink("nowhere", dir+"/dangling.yaml"); err != nil {
		t.Fatal(err)
	}
	files, digest, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := "a/x.yml: x; b.yaml: b1,b2; bad.yaml: ! bad.yaml:5: apiVersion: missing: Service is of outrigger.io/v1; c.json: c; dangling.yaml: ! dangling.yaml: cannot be read: "
	if got := picture(files); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "; empty.yaml: ") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	write(t, dir+"/README.md", "changed")
	if _, again, err := Read(dir); err != nil || again != digest {
		t.Errorf("a foreign file changed the digest: %v", err)
	}
}

func TestAFileThatIsTooLargeOrNoFileIsAnErrorOfThatFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/big.yaml", strings.Repeat("#", MaxFileBytes+1))
	if err := os.Symlink("/dev/zero", dir+"/zero.yaml"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/good.yaml", svc("a"))
	files, _, err := Read(dir)
	want := "big.yaml: ! big.yaml: cannot be read: more than 16MiB; good.yaml: a; zero.yaml: ! zero.yaml: cannot be read: not a regular file"
	if got := picture(files); err != nil || got != want {
		t.Errorf("got  %s\nwant %s\n%v", got, want, err)
	}
}

func TestAFolderThatIsGoneIsAnError(t *testing.T) {
	if _, _, err := Read(t.TempDir() + "/none"); err == nil || !strings.Contains(err.Error(), "configuration folder") {
		t.Errorf("got %v", err)
	}
}

// watched is a running watcher whose applied pictures come over a channel.
type watched struct {
	t      *testing.T
	seen   chan string
	faults chan error
}

func watch(t *testing.T, dir string, change func(*Watcher)) *watched {
	t.Helper()
	x := &watched{t, make(chan string, 64), make(chan error, 64)}
	w := &Watcher{
		Dir: dir, Settle: 5 * time.Millisecond, Poll: time.Hour,
		Apply: func(_ context.Context, files []File) error { x.seen <- picture(files); return nil },
		Fault: func(err error) { x.faults <- err },
	}
	if change != nil {
		change(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ended by the cleanup below
		w.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return x
}

// want waits until a picture is applied; others before it may be halves of a change.
func (x *watched) want(picture string) {
	x.t.Helper()
	deadline := time.After(20 * time.Second)
	last := "nothing"
	for {
		select {
		case got := <-x.seen:
			if got == picture {
				return
			}
			last = got
		case <-deadline:
			x.t.Fatalf("applied: got %s last, want %s", last, picture)
		}
	}
}

func TestChangesAreSeenHoweverTheyAreMade(t *testing.T) {
	dir := t.TempDir() + "/conf"
	write(t, dir+"/a.yaml", svc("a1"))
	w := watch(t, dir, nil)
	w.want("a.yaml: a1")

	write(t, dir+"/a.yaml", svc("a2"))
	w.want("a.yaml: a2")

	write(t, dir+"/.tmp", svc("a3")) // as editors save
	if err := os.Rename(dir+"/.tmp", dir+"/a.yaml"); err != nil {
		t.Fatal(err)
	}
	w.want("a.yaml: a3")

	write(t, dir+"/sub/b.yaml", svc("b1"))
	w.want("a.yaml: a3; sub/b.yaml: b1")
	write(t, dir+"/sub/b.yaml", svc("b2"))
	w.want("a.yaml: a3; sub/b.yaml: b2")

	write(t, dir+"/sub/b.yaml", "kind: [")
	deadline := time.After(20 * time.Second)
	for bad := false; !bad; {
		select {
		case got := <-w.seen:
			bad = strings.HasPrefix(got, "a.yaml: a3; sub/b.yaml: ! sub/b.yaml:1: ")
		case <-deadline:
			t.Fatal("the bad file was not handed on")
		}
	}
	if err := os.RemoveAll(dir + "/sub"); err != nil {
		t.Fatal(err)
	}
	w.want("a.yaml: a3")
}

// TestAMountedFolderIsSwappedByItsLink does what Kubernetes does to a ConfigMap.
func TestAMountedFolderIsSwappedByItsLink(t *testing.T) {
	dir := t.TempDir()
	version := func(n int) {
		t.Helper()
		write(t, fmt.Sprintf("%s/..v%d/a.yaml", dir, n), svc(fmt.Sprintf("a%d", n)))
		if err := os.Symlink(fmt.Sprintf("..v%d", n), dir+"/..data.new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/..data.new", dir+"/..data"); err != nil {
			t.Fatal(err)
		}
	}
	version(1)
	if err := os.Symlink("..data/a.yaml", dir+"/a.yaml"); err != nil {
		t.Fatal(err)
	}
	w := watch(t, dir, nil)
	w.want("a.yaml: a1")
	version(2)
	w.want("a.yaml: a2")
}

func TestAFolderThatIsALinkOrIsReplacedIsFollowed(t *testing.T) {
	base := t.TempDir()
	write(t, base+"/one/a.yaml", svc("one"))
	write(t, base+"/two/a.yaml", svc("two"))
	link := base + "/conf"
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	w := watch(t, link, nil)
	w.want("a.yaml: one")
	if err := errors.Join(os.Symlink("two", base+"/next"), os.Rename(base+"/next", link)); err != nil {
		t.Fatal(err)
	}
	w.want("a.yaml: two")
	write(t, base+"/two/a.yaml", svc("two-b"))
	w.want("a.yaml: two-b")

	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.faults:
	case <-time.After(20 * time.Second):
		t.Fatal("a folder that is gone is no fault")
	}
	write(t, link+"/a.yaml", svc("three"))
	w.want("a.yaml: three")
}

func TestThePollFindsWhatEventsMissAndEqualContentIsNotApplied(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", svc("a"))
	applied := 0
	w := &Watcher{Dir: dir, Apply: func(context.Context, []File) error { applied++; return nil }}
	for range 3 {
		if err := w.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/a.yaml", svc("a")) // a new time, the same content
	}
	if applied != 1 {
		t.Errorf("applied: got %d times, want once", applied)
	}
	polled := watch(t, dir, func(w *Watcher) { w.Settle, w.Poll = time.Hour, 10*time.Millisecond })
	polled.want("a.yaml: a")
	write(t, dir+"/a.yaml", svc("b"))
	polled.want("a.yaml: b")
}

func TestAFailedApplyIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", svc("a"))
	calls := 0
	w := &Watcher{Dir: dir, Apply: func(context.Context, []File) error {
		if calls++; calls == 1 {
			return errors.New("disk full")
		}
		return nil
	}}
	if err := w.Load(t.Context()); err == nil {
		t.Error("the failure was swallowed")
	}
	if err := w.Load(t.Context()); err != nil || calls != 2 {
		t.Errorf("second: %v after %d calls", err, calls)
	}
}
