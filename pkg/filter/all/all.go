// SPDX-License-Identifier: Apache-2.0

// Package all is the list of HTTP filters, and nothing else. A new filter is a
// folder below pkg/filter and one line here.
package all

import (
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/adaptiveconcurrency"
	"github.com/outrigger-mesh/outrigger/pkg/filter/fault"
	"github.com/outrigger-mesh/outrigger/pkg/filter/grpcstats"
	"github.com/outrigger-mesh/outrigger/pkg/filter/grpcweb"
	"github.com/outrigger-mesh/outrigger/pkg/filter/healthcheck"
	"github.com/outrigger-mesh/outrigger/pkg/filter/localratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/filter/router"
	"github.com/outrigger-mesh/outrigger/pkg/filter/statefulsession"
	filtertap "github.com/outrigger-mesh/outrigger/pkg/filter/tap"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// Specs are all kinds of filters that a sidecar has.
func Specs(hub *tap.Hub) []filter.Spec {
	return []filter.Spec{
		adaptiveconcurrency.Spec(),
		filtertap.Spec(hub),
		grpcstats.Spec(),
		grpcweb.Spec(),
		fault.Spec(),
		healthcheck.Spec(),
		localratelimit.Spec(),
		statefulsession.Spec(),
		statefulsession.RouteSpec(),
		router.Spec(),
	}
}
