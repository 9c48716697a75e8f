// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// A service called localhost, at the address of a sidecar's own admin port, would
// be let in there: that port knows its callers by their Host.
func TestNoServiceTakesTheNameOfItsClientsOwnHost(t *testing.T) {
	for name, ok := range map[string]bool{
		"localhost": false, "admin.localhost": false, "127.0.0.1": false, "127.1": false, "2130706433": false, "10.0.0.7": false,
		"orders": true, "orders-2": true, "v2.orders": true, "localhost.orders": true, "1orders": true, "localhosts": true,
	} {
		i := mesh.Instance{Service: name, ID: "a", Address: "127.0.0.1", Port: 80}
		if got := i.Check(); (len(got) == 0) != ok {
			t.Errorf("an instance of %q: %v", name, got)
		}
		_, err := mesh.ParseOne([]byte(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"` + name + `"},"spec":{}}`))
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "metadata.name") {
			t.Errorf("a Service %q: %v", name, err)
		}
	}
}

// Metadata services answer whoever can reach them with credentials.
func TestNoInstanceIsAMetadataService(t *testing.T) {
	for address, ok := range map[string]bool{
		"169.254.169.254": false, "::ffff:169.254.169.254": false, "fe80::1": false, "100.100.100.200": false, "192.0.0.192": false,
		"fd00:ec2::254": false, "fd20:ce::254": false, "255.255.255.255": false, "224.0.0.1": false, "0.0.0.0": false, "::": false,
		"10.0.0.1": true, "127.0.0.1": true, "fd00:ec2::253": true, "100.100.100.201": true,
	} {
		i := mesh.Instance{Service: "a", ID: "a", Address: address, Port: 80}
		if got := i.Check(); (len(got) == 0) != ok {
			t.Errorf("%s: %v", address, got)
		}
	}
}
