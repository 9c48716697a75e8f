// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"encoding/json"
	"errors"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// eachTool runs a test with both tools, each in a world of its own with all listeners.
func eachTool(t *testing.T, f func(t *testing.T, w *world, tool string)) {
	for _, tool := range []string{"nft", "iptables"} {
		t.Run(tool, func(t *testing.T) {
			needTool(t, tool)
			f(t, newWorld(t), tool)
		})
	}
}

// listenEverywhere starts the listeners of both namespaces. The peer answers at
// any port that the tests go to.
func (w *world) listenEverywhere(t *testing.T) {
	t.Helper()
	for _, l := range []struct{ ns, name, address string }{
		{w.app, "outbound", "127.0.0.1:15001"}, {w.app, "outbound", "[::1]:15001"},
		{w.app, "inbound", ":15006"}, {w.app, "application", ":8080"}, {w.app, "ssh", ":22"},
		{w.peer, "peer", ":80"}, {w.peer, "peer", ":5432"},
	} {
		w.listen(t, l.ns, l.name, l.address, false)
	}
}

// journey is a connection and where it must arrive.
type journey struct {
	name, from string
	as         who
	to, want   string
}

func (w *world) check(t *testing.T, journeys []journey) {
	t.Helper()
	for _, j := range journeys {
		ns := w.app
		if j.from == "peer" {
			ns = w.peer
		}
		if got := w.reach(t, ns, j.as, j.to); got != j.want {
			t.Errorf("%s: %s: arrived at %q, want %q", j.name, j.to, got, j.want)
		}
	}
}

func TestConnectionsOfTheApplicationArriveAtTheSidecarWithTheirDestination(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.listenEverywhere(t)
		w.intercept(t, "--tool", tool, "--exclude-outbound-ports", "5432,9000-9010",
			"--exclude-outbound-networks", "10.77.0.128/25,fd77::80/121", "--exclude-uids", "3000-3010", "--exclude-gids", "4000")
		run(t, "ip", "-n", w.peer, "addr", "add", "10.77.0.200/24", "dev", "eth0")
		run(t, "ip", "-n", w.peer, "addr", "add", "fd77::81/64", "dev", "eth0", "nodad")
		w.check(t, []journey{
			{"IPv4", "app", application, peerV4 + ":80", "outbound 10.77.0.2:80"},
			{"IPv6", "app", application, "[" + peerV6 + "]:80", "outbound [fd77::2]:80"},
			{"an address that nobody has", "app", application, "203.0.113.9:8443", "outbound 203.0.113.9:8443"},
			{"link-local metadata", "app", application, "169.254.169.254:80", "outbound 169.254.169.254:80"},
			{"root is no exception", "app", who{}, peerV4 + ":80", "outbound 10.77.0.2:80"},
			{"the sidecar's user", "app", theSidecar, peerV4 + ":80", "peer 10.77.0.2:80"},
			{"the sidecar's user by IPv6", "app", theSidecar, "[" + peerV6 + "]:80", "peer [fd77::2]:80"},
			{"the sidecar's group", "app", who{1000, 65532}, peerV4 + ":80", "peer 10.77.0.2:80"},
			{"an excluded user", "app", who{3005, 1}, peerV4 + ":80", "peer 10.77.0.2:80"},
			{"the user beside it", "app", who{3011, 1}, peerV4 + ":80", "outbound 10.77.0.2:80"},
			{"an excluded group", "app", who{1000, 4000}, peerV4 + ":80", "peer 10.77.0.2:80"},
			{"an excluded port", "app", application, peerV4 + ":5432", "peer 10.77.0.2:5432"},
			{"an excluded network", "app", application, "10.77.0.200:80", "peer 10.77.0.200:80"},
			{"an excluded IPv6 network", "app", application, "[fd77::81]:80", "peer [fd77::81]:80"},
			{"the application to itself", "app", application, "127.0.0.1:8080", "application 127.0.0.1:8080"},
			{"the application to itself by IPv6", "app", application, "[::1]:8080", "application [::1]:8080"},
			{"the application to its own address", "app", application, appV4 + ":8080", "application 10.77.0.1:8080"},
			{"the sidecar to the application", "app", theSidecar, "127.0.0.1:8080", "application 127.0.0.1:8080"},
			{"the sidecar to its host's address", "app", theSidecar, appV4 + ":8080", "inbound 10.77.0.1:8080"},
			{"the sidecar to its host's IPv6 address", "app", theSidecar, "[" + appV6 + "]:8080", "inbound [fd77::1]:8080"},
		})
	})
}

func TestOnlyTheDestinationsAskedForAreIntercepted(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.listenEverywhere(t)
		w.intercept(t, "--tool", tool, "--outbound-ports", "80,81", "--outbound-networks", "10.77.0.0/24", "--inbound-ports", "8080")
		w.check(t, []journey{
			{"port and network", "app", application, peerV4 + ":80", "outbound 10.77.0.2:80"},
			{"another port", "app", application, peerV4 + ":5432", "peer 10.77.0.2:5432"},
			{"another network", "app", application, "[" + peerV6 + "]:80", "peer [fd77::2]:80"},
			{"inbound", "peer", who{}, appV4 + ":8080", "inbound 10.77.0.1:8080"},
			{"inbound, another port", "peer", who{}, appV4 + ":22", "ssh 10.77.0.1:22"},
		})
	})
}

func TestConnectionsFromElsewhereArriveAtTheInboundListener(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.listenEverywhere(t)
		w.intercept(t, "--tool", tool, "--direction", "inbound", "--exclude-inbound-networks", "10.77.0.99/32")
		run(t, "ip", "-n", w.peer, "route", "add", appV4, "dev", "eth0", "src", peerV4)
		w.check(t, []journey{
			{"IPv4", "peer", who{}, appV4 + ":8080", "inbound 10.77.0.1:8080"},
			{"IPv6", "peer", who{}, "[" + appV6 + "]:8080", "inbound [fd77::1]:8080"},
			{"a port that nobody listens on", "peer", who{}, appV4 + ":9999", "inbound 10.77.0.1:9999"},
			{"the excluded port", "peer", who{}, appV4 + ":22", "ssh 10.77.0.1:22"},
			{"the sidecar itself", "peer", who{}, appV4 + ":15006", "inbound 10.77.0.1:15006"},
			{"outbound stays", "app", application, peerV4 + ":80", "peer 10.77.0.2:80"},
		})
		run(t, "ip", "-n", w.peer, "addr", "add", "10.77.0.99/24", "dev", "eth0")
		run(t, "ip", "-n", w.peer, "route", "replace", appV4, "dev", "eth0", "src", "10.77.0.99")
		w.check(t, []journey{{"an excluded client", "peer", who{}, appV4 + ":8080", "application 10.77.0.1:8080"}})
	})
}

func TestTransparentListenersSeeTheDestinationAsTheirOwnAddress(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.listen(t, w.app, "inbound", ":15006", true)
		w.listen(t, w.app, "application", ":8080", false)
		w.listen(t, w.app, "outbound", "127.0.0.1:15001", false)
		w.listen(t, w.peer, "peer", ":80", false)
		w.intercept(t, "--tool", tool, "--inbound-mode", "tproxy")
		w.check(t, []journey{
			{"IPv4", "peer", who{}, appV4 + ":8080", "inbound 10.77.0.1:8080"},
			{"IPv6", "peer", who{}, "[" + appV6 + "]:8080", "inbound [fd77::1]:8080"},
			{"answers to the sidecar's own connections", "app", theSidecar, peerV4 + ":80", "peer 10.77.0.2:80"},
			{"outbound", "app", application, peerV4 + ":80", "outbound 10.77.0.2:80"},
		})
	})
}

func TestQueriesToAnyResolverArriveAtTheSidecarsDNSPort(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		for _, address := range []string{"127.0.0.1:15053", "[::1]:15053"} {
			w.listen(t, w.app, "dns", address, false)
			w.answerDatagrams(t, w.app, address, "sidecar")
		}
		w.answerDatagrams(t, w.peer, peerV4+":53", "resolver")
		w.intercept(t, "--tool", tool, "--dns", "127.0.0.1:15053")
		for _, q := range []struct {
			as       who
			to, want string
		}{
			{application, peerV4 + ":53", "sidecar"},
			{application, "[" + peerV6 + "]:53", "sidecar"},
			{application, "127.0.0.11:53", "sidecar"}, // as in containers
			{theSidecar, peerV4 + ":53", "resolver"},
		} {
			if got := w.askDatagram(t, w.app, q.as, q.to); got != q.want {
				t.Errorf("query to %s as %d: %q answered, want %q", q.to, q.as.uid, got, q.want)
			}
		}
		w.check(t, []journey{{"by TCP", "app", application, peerV4 + ":53", "dns 10.77.0.2:53"}})
	})
}

// answerDatagrams answers every datagram with a name, from the address it came to.
func (w *world) answerDatagrams(t *testing.T, ns, address, name string) {
	t.Helper()
	var c net.PacketConn
	in(t, ns, who{}, func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	})
	ended := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-ended })
	go func() {
		defer close(ended)
		b := make([]byte, 512)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name), from)
		}
	}()
}

func (w *world) askDatagram(t *testing.T, ns string, as who, address string) string {
	t.Helper()
	var got string
	in(t, ns, as, func() error {
		c, err := net.Dial("udp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		b := make([]byte, 512)
		n, err := c.Read(b)
		got = string(b[:n])
		return err
	})
	return got
}

func TestASecondRunChangesNothingAndRemoveLeavesNoRuleBehind(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		// A neighbour's rules stay, whatever happens.
		if tool == "nft" {
			run(t, "ip", "netns", "exec", w.app, "nft", "add table inet neighbour; add chain inet neighbour c; add rule inet neighbour c tcp dport 1 accept")
		} else {
			// The tools leave the kernel's own chains where they once looked.
			for _, program := range []string{"iptables", "ip6tables"} {
				for _, table := range []string{"nat", "mangle"} {
					for _, chain := range []string{"OUTPUT", "PREROUTING"} {
						run(t, "ip", "netns", "exec", w.app, program, "-t", table, "-A", chain, "-p", "tcp", "--dport", "1", "-j", "ACCEPT")
					}
				}
			}
		}
		before := w.ruleset(t)
		args := []string{"--tool", tool, "--dns", "127.0.0.1:15053", "--exclude-outbound-networks", "10.0.0.0/8,fd00::/8", "--exclude-outbound-ports", "25,110-143"}
		w.intercept(t, args...)
		first := w.ruleset(t)
		if first == before {
			t.Fatal("no rule was installed")
		}
		w.intercept(t, args...)
		if second := w.ruleset(t); second != first {
			t.Errorf("the second run changed the rules:\n%s\n--- were\n%s", second, first)
		}
		w.intercept(t, "--tool", tool, "--direction", "inbound", "--inbound-mode", "tproxy")
		w.intercept(t, "--remove")
		if after := w.ruleset(t); after != before {
			t.Errorf("left behind:\n%s\n--- before\n%s", after, before)
		}
		w.intercept(t, "--remove")
		if after := w.ruleset(t); after != before {
			t.Errorf("a second --remove changed:\n%s\n--- before\n%s", after, before)
		}
	})
}

func TestTheOtherToolsRulesGoWhenTheToolChanges(t *testing.T) {
	needTool(t, "iptables")
	needTool(t, "nft")
	w := newWorld(t)
	w.intercept(t, "--tool", "iptables")
	w.intercept(t)
	if rules := w.ruleset(t); strings.Contains(rules, "OUTRIGGER") || !strings.Contains(rules, "table inet outrigger") {
		t.Errorf("after iptables and nft:\n%s", rules)
	}
	w.intercept(t, "--tool", "iptables")
	if rules := w.ruleset(t); !strings.Contains(rules, "OUTRIGGER") || strings.Contains(rules, "table inet outrigger") {
		t.Errorf("after nft and iptables:\n%s", rules)
	}
}

func TestConcurrentRunsLeaveTheRulesOfOne(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.intercept(t, "--tool", tool)
		want := w.ruleset(t)
		w.intercept(t, "--remove")
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				if i%4 == 3 {
					interceptIn(t, w, "--remove")
				} else {
					interceptIn(t, w, "--tool", tool)
				}
			})
		}
		all.Wait()
		w.intercept(t, "--tool", tool)
		if got := w.ruleset(t); got != want {
			t.Errorf("rules after concurrent runs:\n%s\n--- of one run\n%s", got, want)
		}
	})
}

func interceptIn(t *testing.T, w *world, args ...string) {
	out, err := exec.Command("ip", append([]string{"netns", "exec", w.app, sidecarBinary, "intercept"}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("intercept %v: %v\n%s", args, err, out)
	}
}

func TestDryRunPrintsWhatRunsAndChangesNothing(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		args := []string{"--tool", tool, "--dns", ":15053", "--exclude-outbound-ports", "25"}
		w.intercept(t, args...)
		want := w.ruleset(t)
		removal := w.intercept(t, "--remove", "--dry-run", "--tool", tool)
		script := w.intercept(t, append(args, "--dry-run")...)
		if got := w.ruleset(t); got != want {
			t.Errorf("--dry-run changed the rules:\n%s\n--- were\n%s", got, want)
		}
		run(t, "ip", "netns", "exec", w.app, "sh", "-ec", removal)
		if got := w.ruleset(t); strings.Contains(strings.ToLower(got), "outrigger") {
			t.Errorf("the printed removal left:\n%s", got)
		}
		run(t, "ip", "netns", "exec", w.app, "sh", "-ec", script)
		if got := w.ruleset(t); got != want {
			t.Errorf("the printed script installs:\n%s\n--- want\n%s", got, want)
		}
		var report struct {
			Action, Tool string
			Commands     []struct{ Argv []string }
		}
		if err := json.Unmarshal([]byte(w.intercept(t, append(args, "-o", "json")...)), &report); err != nil {
			t.Fatal(err)
		}
		if report.Action != "installed" || report.Tool != tool || len(report.Commands) == 0 {
			t.Errorf("-o json: %+v", report)
		}
	})
}

func TestWithoutPrivilegesTheMissingCapabilityIsNamed(t *testing.T) {
	if skipReason != "" {
		t.Skip(skipReason)
	}
	_, noNFT := exec.LookPath("nft")
	if _, noIPTables := exec.LookPath("iptables"); noNFT != nil && noIPTables != nil {
		t.Skip("neither nft nor iptables is installed: that is said first")
	}
	c := exec.Command(sidecarBinary, "intercept")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("ended with %v, want exit code 3", err)
	}
	for _, want := range []string{"NET_ADMIN", "cap_add", "--dry-run"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the error has no %q:\n%s", want, out)
		}
	}
}
