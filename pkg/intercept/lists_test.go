// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestListsAreSortedAndJoined(t *testing.T) {
	ports, err := ParsePorts([]string{"443", "80", " 81-90", "85-100", "65535"})
	if got := fmt.Sprint(ports); err != nil || got != "[80-100 443 65535]" {
		t.Errorf("ports: %s, %v", got, err)
	}
	networks, err := ParsePrefixes([]string{"10.1.0.0/16", "fd00::/8", "10.0.0.0/8", "192.0.2.7", "fd00::1"})
	if got := fmt.Sprint(networks); err != nil || got != "[10.0.0.0/8 192.0.2.7/32 fd00::/8]" {
		t.Errorf("networks: %s, %v", got, err)
	}
	ids, err := ParseIDs([]string{"proxy", "0-3"}, func(name string) (uint32, error) {
		if name != "proxy" {
			return 0, errors.New("unknown")
		}
		return 13, nil
	})
	if got := fmt.Sprint(ids); err != nil || got != "[0-3 13]" {
		t.Errorf("ids: %s, %v", got, err)
	}
}

func TestEachWrongEntryIsNamed(t *testing.T) {
	_, err := ParsePorts([]string{"0", "65536", "http", "9-8", "", "1-", "-1", "+5", "80; drop"})
	for _, want := range []string{`"0"`, `"65536"`, `"http"`, `"9-8": the range ends before it begins`, `""`, `"1-"`, `"-1"`, `"+5"`, `"80; drop"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ports: %v: nothing about %s", err, want)
		}
	}
	_, err = ParsePrefixes([]string{"10.0.0.1/8", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.0/33", "name", ""})
	for _, want := range []string{"want 10.0.0.0/8", "write it as IPv4: 10.0.0.1", `"fe80::1%eth0"`, `"10.0.0.0/33"`, `"name"`, `""`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("networks: %v: nothing about %s", err, want)
		}
	}
	if _, err = ParseIDs([]string{"4294967295"}, nil); err == nil {
		t.Error("the id that means none is taken")
	}
	if _, err = ParsePorts(make([]string, maxList+1)); err == nil {
		t.Error("a list without end is taken")
	}
}

func TestTheLockIsHeldByOneAndWaitedForUntilTheContextEnds(t *testing.T) {
	name := fmt.Sprintf("@outrigger-test-%d", os.Getpid())
	unlock, err := lock(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := lock(short, name); !errors.Is(err, ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second holder: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		next, err := lock(context.Background(), name)
		if err == nil {
			next()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Errorf("after it was let go of: %v", err)
	}
}

func FuzzLists(f *testing.F) {
	for _, s := range []string{"80", "1-65535", "10.0.0.0/8,fd00::/8", "0-4294967294", "192.0.2.1", "::ffff:1.2.3.4/96", "80\n:x - [0:0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries := strings.Split(text, ",")
		c := Config{IPv4: true, IPv6: true, Outbound: 15001, Inbound: 15006, ExcludeMark: 1}
		ports, err := ParsePorts(entries)
		if err == nil {
			for i, r := range ports {
				if r.Lo < 1 || r.Hi > 65535 || r.Lo > r.Hi || i > 0 && r.Lo <= ports[i-1].Hi+1 {
					t.Fatalf("ranges %v of %q", ports, text)
				}
			}
			c.ExcludeOutboundPorts = ports
		}
		if networks, err := ParsePrefixes(entries); err == nil {
			for i, p := range networks {
				if p.Masked() != p || i > 0 && networks[i-1].Overlaps(p) {
					t.Fatalf("networks %v of %q", networks, text)
				}
			}
			c.ExcludeOutboundNetworks = networks
		}
		if ids, err := ParseIDs(entries, nil); err == nil {
			c.ExcludeUIDs = ids
		}
		// Nothing of the text gets into a rule but digits and addresses.
		for _, tool := range []Tool{NFT, IPTables} {
			for _, cmd := range c.Install(tool) {
				if strings.ContainsAny(cmd.Input, ";\x00") && tool == IPTables || strings.Count(cmd.Input, "policy") > 2 {
					t.Fatalf("%q made\n%s", text, cmd.Input)
				}
			}
		}
	})
}
