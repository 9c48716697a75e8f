// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/all"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// maxBootstrapBytes bounds a bootstrap: one with a hundred thousand static
// clusters is about half of it.
const maxBootstrapBytes = 64 << 20

// yamlFlag stands for the file's name in errors of --config-yaml.
const yamlFlag = "--config-yaml"

// loadBootstrap reads the bootstrap that the flags name, or makes the one that
// stands for the common case. The error names every fault with file:line and
// field path. Of n, what the flags gave replaces what the file says.
func loadBootstrap(o *Options, n Node, reg *filter.Registry) (*decode.BootstrapConfig, error) {
	if o.Common() {
		return commonBootstrap(o, n), nil
	}
	data, name, err := readBootstrap(o)
	if err != nil {
		return nil, err
	}
	b, err := decode.Bootstrap(data, name, reg)
	if err != nil {
		return nil, err
	}
	b.Node.ID = cmp.Or(n.ID, b.Node.ID)
	b.Node.Cluster = cmp.Or(n.Cluster, b.Node.Cluster)
	b.Node.Region = cmp.Or(n.Region, b.Node.Region)
	b.Node.Zone = cmp.Or(n.Zone, b.Node.Zone)
	return b, nil
}

// commonBootstrap is what --service and --controlplane stand for: everything by
// delta ADS from the control plane. It is waited for without a limit: a sidecar that
// has no listeners yet must not be ready, and sidecar exec not start its command.
func commonBootstrap(o *Options, n Node) *decode.BootstrapConfig {
	ads := decode.Source{Kind: decode.SourceADS}
	metadata := map[string]any{}
	for k, v := range n.Metadata {
		metadata[k] = v
	}
	return &decode.BootstrapConfig{
		File: "command line",
		Node: decode.Node{ID: n.ID, Cluster: n.Cluster, Region: n.Region, Zone: n.Zone, Metadata: metadata},
		ADS:  &decode.Source{Kind: decode.SourceDelta, Service: decode.Service{Target: o.ControlPlane}},
		LDS:  &ads, CDS: &ads,
		StatsFlush: 5 * time.Second,
	}
}

// validateBootstrap decodes and compiles the bootstrap without running it.
func validateBootstrap(o Options) error {
	reg := filter.NewRegistry(all.Specs(tap.NewHub(tap.HubConfig{Workers: 1}))...)
	_, err := loadBootstrap(&o, o.Node(), reg)
	return err
}

func readBootstrap(o *Options) (data []byte, name string, err error) {
	if o.ConfigPath == "" {
		return []byte(o.ConfigYAML), yamlFlag, nil
	}
	info, err := os.Stat(o.ConfigPath)
	if err != nil {
		return nil, "", fmt.Errorf("--config-path %s: %w", o.ConfigPath, bare(err))
	}
	if info.Size() > maxBootstrapBytes {
		return nil, "", fmt.Errorf("--config-path: %s: %d bytes, the limit is %d", o.ConfigPath, info.Size(), maxBootstrapBytes)
	}
	if data, err = os.ReadFile(o.ConfigPath); err != nil {
		return nil, "", fmt.Errorf("--config-path: %w", err)
	}
	if o.ConfigYAML == "" {
		return data, o.ConfigPath, nil
	}
	data, err = mergeYAML(o.ConfigPath, data, o.ConfigYAML)
	return data, o.ConfigPath + "+" + yamlFlag, err
}

// mergeYAML lays the second document over the first as Envoy does: a field
// replaces, an object merges, a list is appended to.
func mergeYAML(path string, base []byte, over string) ([]byte, error) {
	var lower, upper map[string]any
	if err := yaml.Unmarshal(base, &lower); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := yaml.Unmarshal([]byte(over), &upper); err != nil {
		return nil, fmt.Errorf("%s: %w", yamlFlag, err)
	}
	merged, err := yaml.Marshal(merge(lower, upper))
	if err != nil {
		return nil, fmt.Errorf("merge %s over %s: %w", yamlFlag, path, err)
	}
	return merged, nil
}

func merge(lower, upper map[string]any) map[string]any {
	if lower == nil {
		return upper
	}
	for key, value := range upper {
		switch v := value.(type) {
		case map[string]any:
			if l, ok := lower[key].(map[string]any); ok {
				value = merge(l, v)
			}
		case []any:
			if l, ok := lower[key].([]any); ok {
				value = append(l, v...)
			}
		}
		lower[key] = value
	}
	return lower
}
