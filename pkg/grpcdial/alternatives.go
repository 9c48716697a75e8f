// SPDX-License-Identifier: Apache-2.0

package grpcdial

import (
	"strings"

	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// inOrder resolves to all addresses of a Config. gRPC's pick_first goes through
// them before it backs off.
func inOrder(c Config) (*manual.Resolver, error) {
	r := manual.NewBuilderWithScheme("outrigger")
	var s resolver.State
	for _, target := range append([]string{c.Target}, c.Alternatives...) {
		one := c
		one.Target = target
		checked, err := checkTarget(one)
		if err != nil {
			return nil, err
		}
		address := strings.TrimPrefix(checked, "dns:///")
		if path, ok := strings.CutPrefix(checked, "unix://"); ok {
			address = "unix:" + path
		}
		s.Endpoints = append(s.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
		s.Addresses = append(s.Addresses, resolver.Address{Addr: address})
	}
	r.InitialState(s)
	return r, nil
}

// authority is what gRPC itself would take of a target.
func authority(target string) string {
	if strings.HasPrefix(target, "unix:") {
		return "localhost"
	}
	return target
}
