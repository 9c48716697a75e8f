// SPDX-License-Identifier: Apache-2.0

package grpcstats

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// Bounds of a worker's table.
const (
	maxMethods  = 1000
	maxClusters = 4000 // those of configurations that have gone are among them
	maxKey      = 512  // bytes of a method's name, with its cluster's
)

// store has a table for each worker. The list is replaced where filters are made
// for a worker that is not in it, off the loops.
type store struct{ tables atomic.Pointer[[]*table] }

func (s *store) table(worker int) *table {
	for {
		old := s.tables.Load()
		var list []*table
		if old != nil {
			list = *old
		}
		if worker < len(list) {
			return list[worker]
		}
		list = slices.Clone(list)
		for len(list) <= worker {
			list = append(list, &table{methods: map[string]*counters{}, clusters: map[string]*counters{}})
		}
		s.tables.CompareAndSwap(old, &list)
	}
}

// counts implements filter.Spec.Counts.
func (s *store) counts(worker int, dst []filter.Count) []filter.Count {
	return s.table(worker).counts(dst)
}

// table are the counters of one worker; they belong to its loop.
type table struct {
	methods  map[string]*counters // by cluster, service and method, joined by NUL
	clusters map[string]*counters // of calls whose method has no name of its own
	unnamed  counters             // of clusters beyond the bound
}

type counters struct {
	success, failure    uint64
	requests, responses uint64 // messages
	by                  [grpc.Statuses]uint64
	overflow            uint64 // methods for which there was no place
}

func appendKey(dst []byte, cluster string, service, method []byte, replaceDots bool) []byte {
	dst = append(append(dst, cluster...), 0)
	for _, b := range service {
		if b == '.' && replaceDots {
			b = '_'
		}
		dst = append(dst, b)
	}
	return append(append(dst, 0), method...)
}

func (t *table) find(key []byte) *counters { return t.methods[string(key)] }

// add returns the counters of a method, nil where there is no place for it.
func (t *table) add(key []byte) *counters {
	if len(key) == 0 {
		return nil
	}
	c := t.methods[string(key)]
	if c == nil {
		if len(t.methods) >= maxMethods {
			cluster, _, _ := bytes.Cut(key, []byte{0})
			t.cluster(string(cluster)).overflow++
			return nil
		}
		c = new(counters)
		t.methods[string(key)] = c
	}
	return c
}

// cluster returns the counters of what is not counted by method.
func (t *table) cluster(name string) *counters {
	c := t.clusters[name]
	if c == nil {
		if len(t.clusters) >= maxClusters {
			return &t.unnamed
		}
		c = new(counters)
		t.clusters[name] = c
	}
	return c
}

func (t *table) counts(dst []filter.Count) []filter.Count {
	for name, c := range t.clusters {
		dst = c.counts(dst, filter.Count{Cluster: name, Family: "grpc"})
	}
	for key, c := range t.methods {
		part := strings.SplitN(key, "\x00", 3)
		dst = c.counts(dst, filter.Count{Cluster: part[0], Family: "grpc", Tags: []filter.Tag{
			{Name: "envoy_grpc_bridge_service", Value: part[1]}, {Name: "envoy_grpc_bridge_method", Value: part[2]},
		}})
	}
	return dst
}

func (c *counters) counts(dst []filter.Count, as filter.Count) []filter.Count {
	add := func(name, help string, n uint64) {
		as.Name, as.Help, as.Value = name, help, n
		dst = append(dst, as)
	}
	add("success", "Calls that ended with the status OK.", c.success)
	add("failure", "Calls that ended with another status.", c.failure)
	add("total", "Calls that ended with a status.", c.success+c.failure)
	add("request_message_count", "Messages of callers.", c.requests)
	add("response_message_count", "Messages of endpoints.", c.responses)
	for status, n := range c.by {
		if n > 0 {
			add(strconv.Itoa(status), "Calls by the number of their status.", n)
		}
	}
	if c.overflow > 0 {
		add("method_overflow", "Calls counted by cluster because there were too many methods.", c.overflow)
	}
	return dst
}
